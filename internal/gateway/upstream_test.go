package gateway

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// newUpstream returns a connection and a function that reports whether it has been closed.
func newUpstream() (u *upstream, closed func() bool) {
	conn, peer := net.Pipe()
	_ = peer.SetReadDeadline(time.Unix(1, 0))
	return &upstream{Conn: conn}, func() bool {
		_, err := peer.Read(make([]byte, 1))
		return err == io.EOF
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	for _, test := range []struct {
		most        int64
		first, both int
	}{{1000, idleConnsPerNode, 2 * idleConnsPerNode}, {10, 10, 10}, {idleConnsPerNode + 1, idleConnsPerNode, idleConnsPerNode + 1}} {
		shared := &pools{most: test.most}
		a, b := pool{shared: shared}, pool{shared: shared}
		for range idleConnsPerNode + 5 {
			u, _ := newUpstream()
			a.put(u)
		}
		if len(a.idle) != test.first {
			t.Errorf("%d idle connections of one reader, want %d of %d", len(a.idle), test.first, test.most)
		}
		var last func() bool
		for range idleConnsPerNode + 5 {
			var u *upstream
			u, last = newUpstream()
			b.put(u)
		}
		if n := len(a.idle) + len(b.idle); n != test.both || int(shared.idle.Load()) != n {
			t.Errorf("%d idle connections, %d counted, want %d of %d", n, shared.idle.Load(), test.both, test.most)
		}
		if !last() {
			t.Error("a connection that is not kept was not closed")
		}
		u, _ := newUpstream()
		if a.take(); len(b.idle) < idleConnsPerNode {
			if b.put(u); b.take() != u {
				t.Error("the connection that was put last is not taken first")
			}
		}
	}
}

func TestIdleConnectionsExpire(t *testing.T) {
	p := pool{shared: &pools{most: 10}}
	old, oldClosed := newUpstream()
	young, youngClosed := newUpstream()
	p.put(old)
	between := time.Now()
	p.put(young)
	p.expire(old.since)
	if oldClosed() {
		t.Error("a connection was closed before it expired")
	}
	if p.expire(between); !oldClosed() || youngClosed() || p.shared.idle.Load() != 1 {
		t.Errorf("closed: old %v, young %v; %d counted", oldClosed(), youngClosed(), p.shared.idle.Load())
	}
	p.retire()
	late, lateClosed := newUpstream()
	if p.put(late); !youngClosed() || !lateClosed() || p.take() != nil || p.shared.idle.Load() != 0 {
		t.Error("a retired pool keeps a connection")
	}
}

// TestConnectionsAreKept: sequential reads share one connection to a reader. It is closed when the reader is removed from
// the list.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int64
	r := newFaulty(t, func(conn net.Conn) {
		opened.Add(1)
		for {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if readHead(conn) == "" {
				closed.Add(1)
				return
			}
		}
	})
	other := newReader(t, nil)
	path := filepath.Join(t.TempDir(), "nodes")
	replace(t, path, r.addr)
	g := start(t, Config{NodesFile: path})
	g.awaitReady(t, 1)
	for range 20 {
		for _, path := range []string{"/post?id=1", "/post-redis?id=1"} { // the first is served by the lane, the second by net/http
			if res, body := do(t, http.MethodGet, g.url(path), nil); res.StatusCode != 200 || string(body) != "ok" {
				t.Fatalf("%s %q", res.Status, body)
			}
		}
	}
	if opened.Load() != 1 || closed.Load() != 0 {
		t.Errorf("40 reads took %d connections, %d were closed; want one that is kept", opened.Load(), closed.Load())
	}
	replace(t, path, other.addr)
	eventually.True(t, "the connection to the removed reader is closed", func() bool { return closed.Load() == 1 })
}

// TestStrayBytes: bytes that a reader sends after an answer must not become the answer to the next request.
func TestStrayBytes(t *testing.T) {
	const answer, stray = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
	released := make(chan struct{}, 1)
	for name, deal := range map[string]func(net.Conn){
		"with the answer": func(conn net.Conn) { serve(conn, answer+stray) },
		"while the connection is idle": func(conn net.Conn) {
			io.WriteString(conn, answer)
			<-released
			serve(conn, stray)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pool{addr: newFaulty(t, deal).addr, shared: &pools{timeout: patience, most: 10}}
			defer p.drop()
			for range 3 {
				x := &exchange{message: []byte("GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\n"), start: time.Now()}
				if err := p.do(x); err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(&x.answer); err != nil || string(body) != "true" {
					t.Fatalf("%q, %v", body, err)
				}
				x.answer.release()
				if len(p.idle) == 0 {
					continue // the stray bytes came with the answer, so the connection was closed
				}
				released <- struct{}{}
				eventually.True(t, "the stray bytes have arrived", func() bool { return readable(t, p.idle[0]) })
			}
		})
	}
}

// readable reports whether u has received bytes that have not been read.
func readable(t *testing.T, u *upstream) (ok bool) {
	t.Helper()
	err := u.raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		ok = err == nil && n > 0
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}
