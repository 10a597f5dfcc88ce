// Package relay is a TCP relay between a process and a server, which can cut the link between the two.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const dialTimeout = time.Second // longest wait for the server's end of a new connection

// Relay accepts connections and forwards their bytes to a server. Its methods are safe for concurrent use.
type Relay struct {
	listener net.Listener
	server   string // host:port
	serving  sync.WaitGroup

	mu    sync.Mutex // guards all fields below
	cut   bool
	conns map[*net.TCPConn]struct{} // both ends of every link
}

// Listen returns a relay to server on a free port of host, for the caller to close.
func Listen(host, server string) (*Relay, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for a relay: %w", err)
	}
	r := &Relay{listener: ln, server: server, conns: make(map[*net.TCPConn]struct{})}
	r.serving.Go(r.serve)
	return r, nil
}

// Addr returns the address that the relay listens on.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Cut resets every connection. From then on new ones are reset at once, until Mend.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		reset(c)
	}
}

// Mend lets new connections pass again.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Close closes the listener and every connection, and waits until nothing runs any more.
func (r *Relay) Close() {
	r.listener.Close()
	r.Cut()
	r.serving.Wait()
}

func (r *Relay) serve() {
	for {
		conn, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(10 * time.Millisecond) // for instance no file descriptor is free
			continue
		}
		r.serving.Go(func() { r.link(conn.(*net.TCPConn)) })
	}
}

// link forwards bytes between a connection and the server until one of them ends.
func (r *Relay) link(client *net.TCPConn) {
	defer r.forget(client)
	if !r.register(client) {
		return
	}
	conn, err := net.DialTimeout("tcp", r.server, dialTimeout)
	if err != nil {
		reset(client) // as the server itself would refuse it
		return
	}
	server := conn.(*net.TCPConn)
	defer r.forget(server)
	if !r.register(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { forward(server, client) })
	forward(client, server)
	both.Wait()
}

// forward copies bytes until the source ends; then it ends the destination in the same direction. After an error both
// are reset, because the other direction could go on for ever.
func forward(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite() // it may be closed already
}

// register adds a connection, or resets it and returns false while the link is cut.
func (r *Relay) register(c *net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		reset(c)
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *Relay) forget(c *net.TCPConn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	c.Close()
}

// reset closes a connection with a RST, so that its other end sees an error and not an orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
