package fastlane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
)

// echo answers with the value of the parameter and a header that names the lane. For "wait" it blocks until
// release is closed; for "large" it answers with a large body.
type echo struct {
	*fixture
	served int
}

type fixture struct {
	*Server
	addr     string
	release  chan struct{}
	requests atomic.Int64 // number of requests whose answers have been flushed
	waiting  atomic.Int64 // number of handlers that have blocked
}

var large = strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB

func body(value string) string {
	if value == "large" {
		return large
	}
	return "post " + value
}

func (e *echo) Serve(out *Output, q *Request) {
	e.served++
	value := strings.TrimPrefix(string(q.Query), "id=")
	if value == "wait" {
		if !out.Flush() {
			return
		}
		e.waiting.Add(1)
		<-e.release
	}
	b := append(out.Buffer(), "HTTP/1.1 200 OK\r\nX-Lane: fast\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body(value))), 10)
	if out.Closing() {
		b = append(b, "\r\nConnection: close"...)
	}
	out.SetBuffer(append(b, "\r\n\r\n"...))
	if !q.Head {
		out.Body(body(value))
	}
}

func refuse(b []byte, status int, detail string, head bool) []byte {
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\nX-Lane: refused\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", status, http.StatusText(status), len(detail))
	if !head {
		b = append(b, detail...)
	}
	return b
}

func (e *echo) Flushed() {
	e.requests.Add(int64(e.served))
	e.served = 0
}

func start(t testing.TB, options ...func(*Config)) *fixture {
	t.Helper()
	return startWrapped(t, func(c net.Conn) net.Conn { return c }, options...)
}

// wrapping is a listener that wraps the connections it accepts.
type wrapping struct {
	*net.TCPListener
	wrap func(net.Conn) net.Conn
}

func (l *wrapping) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// startWrapped starts a server whose connections are wrapped by wrap.
func startWrapped(t testing.TB, wrap func(net.Conn) net.Conn, options ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{release: make(chan struct{})}
	cfg := Config{
		Path:    "/post",
		Handler: func() Handler { return &echo{fixture: f} },
		Refuse:  refuse,
		Std: httpkit.Track(&http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Lane", "std")
				if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT"}, r.Method) {
					w.WriteHeader(http.StatusMethodNotAllowed) // a request was split at the wrong byte
					return
				}
				if r.URL.Path == "/wait" {
					f.waiting.Add(1)
					<-f.release
				}
				_, _ = io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, body(r.URL.Query().Get("id")))
			}),
			ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 10 * time.Second,
		}),
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, o := range options {
		o(&cfg)
	}
	f.Server = New(cfg)
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as daemon.Common does
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.Server.Serve(&wrapping{ln.(*net.TCPListener), wrap}); !errors.Is(err, http.ErrServerClosed) {
			t.Error("Serve: ", err)
		}
	})
	t.Cleanup(func() {
		_ = f.Server.Close()
		serving.Wait()
	})
	return f
}

func dial(t testing.TB, f *fixture) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

const hostLine = "Host: a\r\n\r\n"

func get(id string) string { return "GET /post?id=" + id + " HTTP/1.1\r\n" + hostLine }

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// answer reads the answer to a GET.
func answer(t testing.TB, r *bufio.Reader) (res *http.Response, content string) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func expect(t testing.TB, r *bufio.Reader, lane, content string) *http.Response {
	t.Helper()
	res, got := answer(t, r)
	if res.StatusCode != 200 || res.Header.Get("X-Lane") != lane || got != content {
		t.Fatalf("%s from the %s lane: %.40q; want %.40q from the %s lane", res.Status, res.Header.Get("X-Lane"), got, content, lane)
	}
	return res
}

func closed(t testing.TB, r *bufio.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); len(b) > 0 || err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		t.Fatalf("%q, %v; want the end of the connection", b, err)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		c := dial(t, f)
		var batch strings.Builder
		for i := range 500 {
			batch.WriteString(get(fmt.Sprint(i)))
			if i%100 == 50 {
				batch.WriteString(get("large"))
			}
		}
		go func() { _, _ = io.WriteString(c, batch.String()) }()
		r := bufio.NewReader(c)
		for i := range 500 {
			expect(t, r, fast, fmt.Sprint("post ", i))
			if i%100 == 50 {
				expect(t, r, fast, large)
			}
		}
		if fast == "std" {
			return // only the fast lane calls Flushed
		}
		eventually.Nil(t, func() error {
			if n := f.requests.Load(); n != 505 {
				return fmt.Errorf("%d answers were flushed, want 505", n)
			}
			return nil
		})
	})
}

func TestLanesChangeInMidStream(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		c := dial(t, f)
		send(t, c, get("1")+get("2")+"POST /post?id=3 HTTP/1.1\r\nContent-Length: 5\r\n"+"Host: a\r\n\r\nhello"+get("4")+get("5"))
		r := bufio.NewReader(c)
		expect(t, r, fast, "post 1")
		expect(t, r, fast, "post 2")
		expect(t, r, "std", "post 3")
		expect(t, r, fast, "post 4")
		expect(t, r, fast, "post 5")
	})
}

func TestHeaderSplitAtEveryByte(t *testing.T) {
	f := start(t)
	request := "GET /post?id=abc HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("x", 40) + "\r\n\r\n"
	for n := 1; n < len(request); n++ {
		c := dial(t, f)
		_ = c.(*net.TCPConn).SetNoDelay(true)
		send(t, c, request[:n])
		// The first part must be neither answered nor lost.
		eventually.Nil(t, func() error {
			if p := f.phase(); p != reading {
				return fmt.Errorf("split at byte %d: phase %d, want %d", n, p, reading)
			}
			return nil
		})
		send(t, c, request[n:])
		expect(t, bufio.NewReader(c), "fast", "post abc")
		_ = c.Close()
		eventually.Nil(t, func() error {
			if f.connCount() > 0 {
				return errors.New("the connection is still open")
			}
			return nil
		})
	}
}

// phase returns the phase of the only connection.
func (f *fixture) phase() phase {
	p, _ := f.status()
	return p
}

// status returns the phase of the only connection and the tick at which it began.
func (f *fixture) status() (p phase, since uint32) {
	f.each(func(c *conn) {
		status := c.status.Load()
		p, since = phase(status&0xff), uint32(status>>8)
	})
	return p, since
}

// waitTicks waits until the clock of the sweep has advanced by n ticks.
func (f *fixture) waitTicks(t testing.TB, n uint32) {
	t.Helper()
	until := f.tick.Load() + n
	eventually.True(t, "tick", func() bool { return f.tick.Load() >= until })
}

func TestBlockedRequestDelaysOnlyItsConnection(t *testing.T) {
	f := start(t)
	blocked, free := dial(t, f), dial(t, f)
	send(t, blocked, get("before")+get("wait")+get("after"))
	r := bufio.NewReader(blocked)
	expect(t, r, "fast", "post before") // flushed before the next request blocks
	eventually.Nil(t, func() error {
		if f.waiting.Load() == 0 {
			return errors.New("no handler is blocked")
		}
		return nil
	})
	send(t, free, get("1"))
	expect(t, bufio.NewReader(free), "fast", "post 1")
	close(f.release)
	expect(t, r, "fast", "post wait")
	expect(t, r, "fast", "post after")
}

// A client that half-closes its connection with the last request receives the answers and the end of the stream,
// even if the kernel reports the last bytes and the end of the stream in one event.
func TestHalfClosedConnectionsEnd(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		for range 50 {
			c := dial(t, f)
			send(t, c, get("1")+get("2"))
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			expect(t, r, fast, "post 1")
			expect(t, r, fast, "post 2")
			closed(t, r)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t, func(c *Config) { c.MaxConns = 2 })
		first, second := dial(t, f), dial(t, f)
		send(t, first, get("1"))
		expect(t, bufio.NewReader(first), fast, "post 1")
		send(t, second, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n") // connections in net/http count too
		expect(t, bufio.NewReader(second), "std", "post ")
		third := dial(t, f)
		send(t, third, get("1"))
		r := bufio.NewReader(third)
		if res, _ := answer(t, r); res.StatusCode != 503 || !res.Close {
			t.Fatalf("the third connection: %s, closing: %v; want 503 and true", res.Status, res.Close)
		}
		closed(t, r)
		for _, c := range []net.Conn{first, second} { // both lanes release their places
			_ = c.Close()
			eventually.Nil(t, func() error {
				c, err := net.Dial("tcp", f.addr)
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.WriteString(c, get("1")); err != nil {
					return err
				}
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					return err
				}
				if res.StatusCode != 200 {
					return errors.New(res.Status)
				}
				return nil
			})
		}
	})
}

func TestSlowClientsAreCut(t *testing.T) {
	short := 600 * time.Millisecond
	t.Run("header", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Std.ReadHeaderTimeout = short })
		c := dial(t, f)
		send(t, c, get("1"))
		r := bufio.NewReader(c)
		expect(t, r, "fast", "post 1")
		// Sending a byte from time to time does not extend the timeout.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			closed(t, r)
		}()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			case <-time.After(short / 6):
				if i < len(get("1"))-1 {
					_, _ = io.WriteString(c, get("1")[i:i+1])
				}
				if i > 60 {
					t.Fatal("a slow header is still being read")
				}
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Std.IdleTimeout = short })
		c := dial(t, f)
		send(t, c, get("1"))
		r := bufio.NewReader(c)
		expect(t, r, "fast", "post 1")
		closed(t, r)
	})
	t.Run("write", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Std.WriteTimeout = short })
		c := dial(t, f)
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		go func() { _, _ = io.WriteString(c, strings.Repeat(get("large"), 100)) }()
		eventually.Nil(t, func() error { // the client reads nothing
			if f.connCount() > 0 {
				return errors.New("a client that does not read is still connected")
			}
			return nil
		})
	})
}

func TestShutdown(t *testing.T) {
	f := start(t)
	idleConn, halfConn, waitConn, stdConn := dial(t, f), dial(t, f), dial(t, f), dial(t, f)
	idleReader, stdReader := bufio.NewReader(idleConn), bufio.NewReader(stdConn)
	send(t, idleConn, get("1"))
	expect(t, idleReader, "fast", "post 1")
	send(t, stdConn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	expect(t, stdReader, "std", "post ")
	send(t, halfConn, get("half")[:20])
	send(t, waitConn, get("wait"))
	eventually.Nil(t, func() error {
		if f.waiting.Load() == 0 {
			return errors.New("no handler is blocked")
		}
		return nil
	})
	eventually.Nil(t, func() error {
		var n int
		f.each(func(c *conn) {
			if c.phase() == reading {
				n++
			}
		})
		if n != 1 {
			return fmt.Errorf("%d headers are being read, want 1", n)
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- f.Server.Shutdown(t.Context()) }()
	closed(t, idleReader)
	if c, err := net.Dial("tcp", f.addr); err == nil {
		_ = c.Close()
		t.Error("a new connection was accepted")
	}
	// A request that is being read and one that is being served are answered.
	send(t, halfConn, get("half")[20:])
	close(f.release)
	for c, want := range map[net.Conn]string{halfConn: "post half", waitConn: "post wait"} {
		r := bufio.NewReader(c)
		if res := expect(t, r, "fast", want); want == "post half" && !res.Close {
			t.Error("the last answer does not carry Connection: close")
		}
		closed(t, r)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	closed(t, stdReader)
}

// Shutdown waits for connections that are being handed over to net/http, which would otherwise drop their
// requests: those that net/http has not accepted yet, and those whose body it is still reading.
func TestShutdownLosesNoHandOver(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		var accepted atomic.Int64
		accept := make(chan struct{})
		f := start(t, func(c *Config) {
			c.Std.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
				if accepted.Add(1) > 1 {
					select { // net/http has accepted the connection and does not track it yet
					case <-accept:
					case <-t.Context().Done():
					}
				}
				return ctx
			}
		})
		whole := "POST /post?id=3 HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello"
		half, pending, queued := dial(t, f), dial(t, f), dial(t, f)
		part := len(whole) - 2
		send(t, half, whole[:part])
		eventually.True(t, "accepted connection", func() bool { return accepted.Load() == 1 })
		send(t, pending, whole)
		eventually.True(t, "pending connection", func() bool { return accepted.Load() == 2 })
		send(t, queued, whole)
		eventually.Nil(t, func() error {
			var n int
			f.each(func(c *conn) {
				if c.phase() == left {
					n++
				}
			})
			if n != 3 {
				return fmt.Errorf("%d connections have left the fast lane, want 3", n)
			}
			return nil
		})
		done := make(chan error, 1)
		go func() { done <- f.Server.Shutdown(t.Context()) }()
		select {
		case <-f.std.done: // must not happen: net/http would accept no more connections
		case <-time.After(200 * time.Millisecond):
		}
		close(accept)
		send(t, half, whole[part:])
		for _, c := range []net.Conn{half, pending, queued} {
			r := bufio.NewReader(c)
			if res := expect(t, r, "std", "post 3"); !res.Close {
				t.Error("the last answer does not carry Connection: close")
			}
			closed(t, r)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := f.connCount(); n != 0 {
			t.Errorf("%d connections are still open after Shutdown", n)
		}
	})
}

func TestShutdownIsBounded(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	send(t, c, get("half")[:20])
	eventually.Nil(t, func() error {
		if f.phase() != reading {
			return errors.New("the header is not being read")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := f.Server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	_ = f.Server.Close()
	closed(t, bufio.NewReader(c))
}

// static answers every request with the same bytes.
type static struct{}

const staticAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npost"

func (static) Serve(out *Output, _ *Request) {
	out.SetBuffer(append(out.Buffer(), staticAnswer...))
}
func (static) Flushed() {}

func TestNoAllocations(t *testing.T) {
	f := start(t, func(c *Config) { c.Handler = func() Handler { return static{} } })
	c := dial(t, f)
	batch := []byte(strings.Repeat("GET /post?id=x HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"abc\"\r\nX-Min-Version: 1\r\nUser-Agent: test\r\n\r\n", 16))
	answers := make([]byte, 16*len(staticAnswer))
	round := func() {
		if _, err := c.Write(batch); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answers); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := testing.AllocsPerRun(1000, round); n != 0 {
		t.Errorf("%v allocations for 16 requests, want 0", n)
	}
}
