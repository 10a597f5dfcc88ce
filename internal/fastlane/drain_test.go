package fastlane

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
)

const postRequest = "POST /post?id=3 HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello"

// expectLast reads an answer that must carry Connection: close, and the end of the connection.
func expectLast(t testing.TB, r *bufio.Reader, lane, content string) {
	t.Helper()
	if res := expect(t, r, lane, content); !res.Close {
		t.Fatal("the answer does not carry Connection: close")
	}
	closed(t, r)
}

// During the drain answers carry Connection: close. For pipelined requests only the last answer does, because
// requests after such an answer are not answered.
func TestDrainClosesConnections(t *testing.T) {
	f := start(t)
	type client struct {
		net.Conn
		*bufio.Reader
	}
	var clients [4]client
	for i := range clients {
		c := dial(t, f)
		clients[i] = client{c, bufio.NewReader(c)}
		send(t, c, get("0"))
		if res := expect(t, clients[i].Reader, "fast", "post 0"); res.Close {
			t.Fatal("an answer before the drain carries Connection: close")
		}
	}
	f.Drain()
	send(t, clients[0].Conn, get("1"))
	expectLast(t, clients[0].Reader, "fast", "post 1")

	send(t, clients[1].Conn, get("1")+get("2")+get("3")+get("4")[:20])
	expect(t, clients[1].Reader, "fast", "post 1")
	expect(t, clients[1].Reader, "fast", "post 2")
	expectLast(t, clients[1].Reader, "fast", "post 3")

	send(t, clients[2].Conn, get("1")+postRequest)
	expect(t, clients[2].Reader, "fast", "post 1")
	expectLast(t, clients[2].Reader, "std", "post 3")

	send(t, clients[3].Conn, postRequest)
	expectLast(t, clients[3].Reader, "std", "post 3")

	late := dial(t, f)
	send(t, late, get("1"))
	expectLast(t, bufio.NewReader(late), "fast", "post 1")
}

// If the drain begins while a handler waits, its answer carries Connection: close.
func TestDrainDuringARequest(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	send(t, c, get("wait"))
	eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
	f.Drain()
	close(f.release)
	expectLast(t, bufio.NewReader(c), "fast", "post wait")
}

// A request that arrives just when its idle connection is cut is answered, even if it arrives in pieces.
func TestRequestDuringACut(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for _, pieces := range [][]string{{get("1")}, {get("1")[:20], get("1")[20:]}} {
			f := start(t)
			c := dial(t, f)
			var server *conn
			eventually.True(t, "connection", func() bool {
				f.each(func(c *conn) { server = c })
				return server != nil
			})
			// A poke proves that its goroutine reads. A cut before the first read would find nothing and close the connection.
			_ = server.SetReadDeadline(expired)
			eventually.True(t, "idle connection", func() bool { return server.phase() == poked })
			server.mu.Lock() // as the sweep does while it changes the status and sets the deadline
			server.enter(cut, 0)
			send(t, c, pieces[0])
			eventually.True(t, "bytes of a request", func() bool { return server.phase() != cut })
			_ = server.SetReadDeadline(expired)
			server.mu.Unlock()
			for _, piece := range pieces[1:] {
				send(t, c, piece)
			}
			expectLast(t, bufio.NewReader(c), fast, "post 1")
		}
	})
}

// Shutdown waits for a header that net/http is reading, also on a connection on which net/http has answered an
// earlier request.
func TestShutdownWaitsForNetHTTP(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		used, idle := dial(t, f), dial(t, f)
		usedReader, idleReader := bufio.NewReader(used), bufio.NewReader(idle)
		for c, r := range map[net.Conn]*bufio.Reader{used: usedReader, idle: idleReader} {
			send(t, c, postRequest)
			expect(t, r, "std", "post 3")
		}
		send(t, used, postRequest[:30])
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			done <- f.Server.Shutdown(ctx)
		}()
		closed(t, idleReader)
		send(t, used, postRequest[30:])
		expectLast(t, usedReader, "std", "post 3")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// If a client half-closes its connection after an incomplete request, the request is answered with 400 or the
// connection is closed, without a timeout: whether the request arrives alone or after a complete one, and
// whether they arrive together or one after the other.
func TestIncompleteRequestAtTheEndOfTheStream(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t, func(c *Config) { c.Std.ReadHeaderTimeout = time.Hour })
		for _, whole := range []string{"", get("1"), postRequest} {
			for _, half := range []string{"G", "GET /post", get("2")[:30], postRequest[:30], "X"} {
				for _, later := range []bool{false, true} {
					c := dial(t, f)
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					r := bufio.NewReader(c)
					if later {
						send(t, c, whole)
						if whole != "" {
							answer(t, r)
						}
						send(t, c, half)
					} else {
						send(t, c, whole+half)
					}
					_ = c.(*net.TCPConn).CloseWrite()
					if whole != "" && !later {
						answer(t, r)
					}
					rest, err := io.ReadAll(r)
					if err != nil || len(rest) > 0 && !strings.HasPrefix(string(rest), "HTTP/1.1 400 ") {
						t.Errorf("%.20q, then the incomplete %.20q, sent later: %v: %q, %v", whole, half, later, rest, err)
					}
				}
			}
		}
	})
}

// After a client has reset its connection, net/http does not serve its remaining requests either.
func TestWriteErrorEndsTheOtherLane(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		arrived, release := make(chan struct{}, 100), make(chan struct{})
		f := start(t, func(c *Config) {
			c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				arrived <- struct{}{}
				<-release
				_, _ = io.WriteString(w, large)
			})
		})
		c := dial(t, f)
		send(t, c, strings.Repeat(postRequest, 20))
		<-arrived
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		close(release)
		eventually.True(t, "end of the connection", func() bool { return f.connCount() == 0 })
		if n := 1 + len(arrived); n > 3 {
			t.Errorf("%d requests were served after a reset, want at most 3", n)
		}
	})
}

// During the drain clients reconnect, so the first request on a new connection may be in transit when the
// server stops. It is answered.
func TestStopWaitsForTheFirstRequest(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		c := dial(t, f)
		eventually.True(t, "connection", func() bool { return f.connCount() == 1 })
		stopped := make(chan error, 1)
		go func() { stopped <- f.Shutdown(t.Context()) }()
		eventually.True(t, "stop", f.stopping.Load)
		for range 5 { // as Shutdown does
			f.each((*conn).cutIdle)
		}
		send(t, c, get("1"))
		expectLast(t, bufio.NewReader(c), fast, "post 1")
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// A process may be told to stop before its server has begun to serve.
func TestServeAfterShutdown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	log := slog.New(slog.DiscardHandler)
	f := New(Config{Std: httpkit.NewServer(http.NotFoundHandler(), log), Logger: log})
	if err := f.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(ln) }()
	select {
	case err := <-served:
		if err != http.ErrServerClosed {
			t.Errorf("Serve: %v, want %v", err, http.ErrServerClosed)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve has not returned")
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want a closed listener", err)
	}
}
