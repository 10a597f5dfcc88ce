package e2e

import (
	"net"
	"sync"
	"testing"
	"time"
)

// switchboard forwards connections like a proxy that speaks the Redis protocol: between a reply and the next
// request it can move a connection to another server without the client noticing.
type switchboard struct {
	t        testing.TB
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	target string     // address of the current server
	open   []net.Conn // connections of clients and to servers
}

func newSwitchboard(t testing.TB, target string) *switchboard {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &switchboard{t: t, listener: ln, target: target}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		s.mu.Lock()
		for _, c := range s.open {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
	})
	return s
}

func (s *switchboard) addr() string { return s.listener.Addr().String() }

// moveTo makes every connection continue on another server from its next request on.
func (s *switchboard) moveTo(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = target
}

func (s *switchboard) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open = append(s.open, c)
		s.mu.Unlock()
		s.running.Go(func() { s.serve(c) })
	}
}

// serve forwards requests. It switches servers only before a request: the client waits for each reply before it
// sends the next request, so the last reply is complete then.
func (s *switchboard) serve(client net.Conn) {
	defer client.Close()
	var server net.Conn
	var at string
	replies := func(from net.Conn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				if _, werr := client.Write(buf[:n]); werr != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			if server != nil {
				_ = server.Close()
			}
			return
		}
		s.mu.Lock()
		target := s.target
		s.mu.Unlock()
		if server == nil || target != at && buf[0] == '*' {
			if server != nil {
				_ = server.Close()
			}
			if server, err = net.DialTimeout("tcp", target, 2*time.Second); err != nil {
				return
			}
			at = target
			s.mu.Lock()
			s.open = append(s.open, server)
			s.mu.Unlock()
			from := server
			s.running.Go(func() { replies(from) })
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}
