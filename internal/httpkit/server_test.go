package httpkit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// served is a running server. Its /wait answers once release is closed.
type served struct {
	*HTTPServer
	addr    string
	waiting atomic.Int64
	release chan struct{}
}

func serve(t *testing.T) *served {
	t.Helper()
	s := &served{release: make(chan struct{})}
	s.HTTPServer = NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/wait":
			s.waiting.Add(1)
			<-s.release
		case "/empty":
			return
		case "/early":
			w.WriteHeader(http.StatusProcessing)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, "served")
	}), slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			t.Error("Serve: ", err)
		}
	})
	t.Cleanup(func() {
		_ = s.Close()
		serving.Wait()
	})
	return s
}

// count returns the number of all connections and the number of busy ones.
func (s *served) count() (all, busy int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		if c.busy {
			busy++
		}
		c.mu.Unlock()
	}
	return len(s.conns), busy
}

// client is the client's end of a connection.
type client struct {
	net.Conn
	*bufio.Reader
}

func (c client) Read(b []byte) (int, error) { return c.Reader.Read(b) }

func connect(t *testing.T, addr string) client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return client{c, bufio.NewReader(c)}
}

func (c client) send(t *testing.T, request string) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
}

// expect reads an answer and checks its status and whether it carries Connection: close.
func (c client) expect(t *testing.T, status int, closing bool) {
	t.Helper()
	res, err := http.ReadResponse(c.Reader, nil)
	for err == nil && res.StatusCode < 200 {
		res, err = http.ReadResponse(c.Reader, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != status || res.Close != closing {
		t.Fatalf("%s, closing: %v; want %d, %v", res.Status, res.Close, status, closing)
	}
}

func (c client) expectEnd(t *testing.T) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c.Reader); n > 0 || err != nil {
		t.Fatalf("%d bytes, %v; want the end of the connection", n, err)
	}
}

func request(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }

func TestDrainClosesConnections(t *testing.T) {
	s := serve(t)
	for _, tt := range []struct {
		request string
		status  int
	}{
		{request("/"), 200},
		{request("/empty"), 200},
		{request("/early"), 204},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200},
	} {
		s.draining.Store(false)
		c := connect(t, s.addr)
		c.send(t, tt.request)
		c.expect(t, tt.status, false)
		s.Drain()
		c.send(t, tt.request)
		c.expect(t, tt.status, true)
		c.expectEnd(t)
	}
}

// If the drain begins while a request is being served, its answer carries Connection: close.
func TestDrainDuringARequest(t *testing.T) {
	s := serve(t)
	c := connect(t, s.addr)
	c.send(t, request("/wait"))
	eventually.True(t, "request in flight", func() bool { return s.waiting.Load() == 1 })
	s.Drain()
	close(s.release)
	c.expect(t, 200, true)
	c.expectEnd(t)
}

// Shutdown closes idle connections and waits for requests whose headers are still arriving, on new and on
// reused connections.
func TestShutdownDropsNoRequest(t *testing.T) {
	s := serve(t)
	const half = 10
	silent, idle, fresh, used, flight := connect(t, s.addr), connect(t, s.addr), connect(t, s.addr), connect(t, s.addr), connect(t, s.addr)
	for _, c := range []client{idle, used} {
		c.send(t, request("/"))
		c.expect(t, 200, false)
	}
	fresh.send(t, request("/")[:half])
	used.send(t, request("/")[:half])
	flight.send(t, request("/wait"))
	eventually.True(t, "half a header on two connections, and a request in flight", func() bool {
		all, busy := s.count()
		return all == 5 && busy == 3 && s.waiting.Load() == 1
	})
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	silent.expectEnd(t)
	idle.expectEnd(t)
	for _, c := range []client{fresh, used} {
		c.send(t, request("/")[half:])
		c.expect(t, 200, true)
		c.expectEnd(t)
	}
	close(s.release)
	flight.expect(t, 200, true)
	flight.expectEnd(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		_ = c.Close()
		t.Error("the listener still accepts connections")
	}
}

func TestShutdownIsBounded(t *testing.T) {
	s := serve(t)
	c := connect(t, s.addr)
	c.send(t, request("/")[:10])
	eventually.True(t, "half a header", func() bool {
		_, busy := s.count()
		return busy == 1
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*pollInterval)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	_ = s.Close()
	c.expectEnd(t)
}

// Keep-alive clients lose no request when a process stops: a connection is closed only after an answer with
// Connection: close or while it is idle.
func TestStopLosesNoRequest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }), slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, srv, 500*time.Millisecond, nil) }()

	const clients = 50
	var answered, closing atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			for r := bufio.NewReader(c); ; {
				if _, err := io.WriteString(c, request("/")); err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(fmt.Errorf("after %d answers: %w", answered.Load(), err))
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				answered.Add(1)
				if res.Close {
					closing.Add(1)
					return
				}
			}
		})
	}
	eventually.True(t, "reads", func() bool { return answered.Load() > 10*clients })
	stop()
	running.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if closing.Load() != clients {
		t.Errorf("%d of %d clients received Connection: close", closing.Load(), clients)
	}
}

// arriving is a connection on which the first bytes of a request arrive just after cutIdle.
type arriving struct {
	net.Conn
	deadline time.Time
}

func (c *arriving) Read(b []byte) (int, error)         { return copy(b, "GE"), nil }
func (c *arriving) SetReadDeadline(at time.Time) error { c.deadline = at; return nil }

// A request that arrives just after cutIdle is read to its end.
func TestRequestAfterCutIdle(t *testing.T) {
	nc := new(arriving)
	c := &trackedConn{Conn: nc}
	c.cutIdle(time.Now())
	if nc.deadline.IsZero() {
		t.Fatal("cutIdle set no deadline on an idle connection")
	}
	if _, err := c.Read(make([]byte, 4)); err != nil || !nc.deadline.IsZero() {
		t.Errorf("after the read: deadline %v, error %v, want none", nc.deadline, err)
	}
	c.cutIdle(time.Now())
	if !nc.deadline.IsZero() {
		t.Error("cutIdle set a deadline on a connection with half a request")
	}
	c.setIdle()
	c.cutIdle(time.Now().Add(-time.Minute))
	if !nc.deadline.IsZero() {
		t.Error("cutIdle set a deadline on a connection whose request has just been answered")
	}
}
