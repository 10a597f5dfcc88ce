// Package faultnet provides a TCP proxy that injects network faults for tests. It cuts and refuses
// connections, and delays, throttles, stalls or silently discards bytes, in either direction, for all or
// for selected connections.
package faultnet

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Direction is a direction of the traffic.
type Direction int

const (
	ToServer Direction = iota
	ToClient
)

func (d Direction) opposite() Direction { return 1 - d }

func (d Direction) String() string {
	if d == ToServer {
		return "to server"
	}
	return "to client"
}

const (
	dialTimeout = 2 * time.Second
	readBuffer  = 64 << 10
)

// Proxy listens on a port of 127.0.0.1 and forwards every connection to its target. It is safe for
// concurrent use. The faults of the embedded Selection apply to all connections.
//
// The proxy accepts a connection before it dials the target, so a target that is down appears to reset the
// connection at once.
type Proxy struct {
	*Selection

	listener net.Listener
	ctx      context.Context // done when the proxy closes
	cancel   context.CancelFunc
	running  sync.WaitGroup

	accepted atomic.Int64
	passed   [2]atomic.Int64 // bytes forwarded, by direction
	lost     [2]atomic.Int64 // bytes discarded, by direction

	mu         sync.Mutex // guards the fields below and the faults of every Selection
	target     string
	refuse     bool
	selections []*Selection
	hooks      []*Hook
	conns      map[*conn]struct{}
	changed    chan struct{} // closed, and replaced, when a fault changes
}

// NewProxy starts a proxy in front of target (host:port). It is closed when the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for the proxy to %s: %v", target, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Proxy{
		listener: listener,
		ctx:      ctx,
		cancel:   cancel,
		target:   target,
		conns:    map[*conn]struct{}{},
		changed:  make(chan struct{}),
	}
	p.Selection = p.Only(func(Conn) bool { return true })
	p.running.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Addr returns the host:port that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget changes the target of new connections. Existing ones stay.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Refuse makes the proxy reset new connections at once, or stop doing so.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Heal ends all faults of all Selections, disarms the hooks that have not fired, and closes the connections
// that lost bytes, because their streams are incomplete.
func (p *Proxy) Heal() {
	p.heal()
	for _, c := range p.find(func(c *conn) bool { return c.dead[ToServer] || c.dead[ToClient] }) {
		c.close()
	}
}

// HealSilently is like Heal, but the connections that lost bytes stay open and silent, as after a router has
// lost their state. They end when a peer closes them, or by Cut, Reset, Heal or the end of the test.
func (p *Proxy) HealSilently() { p.heal() }

func (p *Proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = false
	p.hooks = nil
	for _, s := range p.selections {
		s.faults = [2]faults{}
	}
	for c := range p.conns {
		c.cutAt = [2]bool{}
	}
	p.wake()
}

// Accepted returns the number of connections accepted so far, refused ones included.
func (p *Proxy) Accepted() int { return int(p.accepted.Load()) }

// Bytes returns the number of bytes forwarded in a direction.
func (p *Proxy) Bytes(d Direction) int64 { return p.passed[d].Load() }

// swallowed returns the number of bytes discarded in a direction.
func (p *Proxy) swallowed(d Direction) int64 { return p.lost[d].Load() }

// Close closes the listener and all connections, and waits for the goroutines.
func (p *Proxy) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		index := int(p.accepted.Add(1)) - 1
		p.mu.Lock()
		refuse, target := p.refuse, p.target
		p.mu.Unlock()
		if refuse {
			reset(client)
			continue
		}
		p.running.Go(func() { p.serve(client, target, index) })
	}
}

func (p *Proxy) serve(client net.Conn, target string, index int) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	cancel()
	if err != nil {
		reset(client)
		return
	}
	for _, peer := range []net.Conn{client, server} {
		// With the default buffers the kernel would accept megabytes before a stall has an effect.
		_ = peer.(*net.TCPConn).SetReadBuffer(readBuffer)
	}
	c := &conn{
		proxy: p,
		index: index,
		peers: [2]net.Conn{ToServer: server, ToClient: client},
		done:  make(chan struct{}),
	}
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	if p.ctx.Err() != nil { // Close may have run before c was registered
		c.close()
	}
	c.run()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// find returns the connections for which match returns true. It calls match with p.mu held.
func (p *Proxy) find(match func(*conn) bool) []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*conn
	for c := range p.conns {
		if match(c) {
			found = append(found, c)
		}
	}
	return found
}

// wake makes all waiting goroutines re-evaluate the faults. p.mu must be held.
func (p *Proxy) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// reset closes a connection with RST instead of FIN.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
