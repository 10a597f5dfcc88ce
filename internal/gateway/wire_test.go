package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// wireClient is a raw connection to the gateway.
type wireClient struct {
	net.Conn
	*bufio.Reader
}

func (g *gateway) connect(t *testing.T) *wireClient {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &wireClient{conn, bufio.NewReader(conn)}
}

func (c *wireClient) send(t *testing.T, request string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, request); err != nil {
		t.Fatal(err)
	}
}

// answer reads the answer to a request with the given method.
func (c *wireClient) answer(t *testing.T, method string) (*http.Response, []byte) {
	t.Helper()
	res, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// wantEnd fails the test unless the connection ends without another byte.
func (c *wireClient) wantEnd(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(c.Reader); err != nil || len(rest) > 0 {
		t.Errorf("%q (%v) instead of the end of the connection", rest, err)
	}
}

// TestRequestsThatAreRefused sends requests that must not reach a reader. Each is answered with a problem document, and the
// connection is closed.
func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	const next = "GET /post?id=smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	tests := []struct {
		name, request string
		code          int
	}{
		{"Transfer-Encoding and Content-Length", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, 400},
		{"Content-Length and Transfer-Encoding", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, 400},
		{"another method", "POST /post?id=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next, 404},
		{"two lengths", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + next, 400},
		{"a list of lengths", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 5\r\n\r\n" + next, 400},
		{"a signed length", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n" + next, 400},
		{"another encoding", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + next, 501},
		{"a name with a space", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n" + next, 400},
		{"no Host", "GET /post?id=1 HTTP/1.1\r\n\r\n" + next, 400},
		{"two Hosts", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + next, 400},
		{"a line without a colon", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n" + next, 400},
		{"no HTTP", "nonsense\r\n\r\n" + next, 400},
		{"a URL of 17 KiB", "GET /post?id=" + strings.Repeat("x", 17<<10), 414},
		{"a header of 17 KiB", "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nX-Filler: " + strings.Repeat("x", 17<<10), 431},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := r.reads.Load()
			c := g.connect(t)
			c.send(t, test.request)
			res, body := c.answer(t, http.MethodGet)
			wantProblem(t, res, body, test.code)
			if !res.Close {
				t.Error("the answer does not say that the connection closes")
			}
			c.wantEnd(t)
			if r.reads.Load() != before {
				t.Error("a request reached the reader")
			}
		})
	}
}

// TestTransferEncodingInHTTP10: such a request is answered, and the bytes after it are not parsed as another request.
func TestTransferEncodingInHTTP10(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	c := g.connect(t)
	c.send(t, "GET /post?id=1 HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /post?id=2 HTTP/1.0\r\n\r\n")
	if res, body := c.answer(t, http.MethodGet); res.StatusCode != http.StatusOK || string(body) != r.addr {
		t.Errorf("%s %q, want the reader's answer", res.Status, body)
	}
	c.wantEnd(t)
	if n := r.reads.Load(); n != 1 {
		t.Errorf("%d requests reached the reader, want 1", n)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	for host, want := range map[string]int{
		"x": 200, "x:80": 200, "127.0.0.1:9080": 200, "[::1]": 200, "[::1]:9080": 200, "": 200,
		"]": 400, "[": 400, "[::1": 400, "::1]": 400, "a:80:90": 400, "a:b": 400, "[::1]x": 400, "a]": 400, "[x]": 400,
	} {
		for _, path := range []string{"/post?id=1", "/health", "/nowhere"} {
			before := r.reads.Load()
			c := g.connect(t)
			c.send(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
			res, body := c.answer(t, http.MethodGet)
			want := want
			if want == 200 && path == "/nowhere" {
				want = 404
			}
			if want != 200 {
				wantProblem(t, res, body, want)
			}
			if res.StatusCode != want || (r.reads.Load() > before) != (want == 200) {
				t.Errorf("%s of Host %q: %s, %d requests reached the reader; want %d", path, host, res.Status, r.reads.Load()-before, want)
			}
		}
	}
}

// TestAnswersThatAreNotForwarded: an answer that is malformed, or whose end is ambiguous, is a failed try.
func TestAnswersThatAreNotForwarded(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"two lengths":                          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
		"Transfer-Encoding and Content-Length": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
		"another encoding":                     "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
		"a signed length":                      "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n",
		"no length":                            "HTTP/1.1 200 OK\r\nContent-Length: \r\n",
		"chunks in HTTP/1.0":                   "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
		"a name with a space":                  "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n",
		"a folded line":                        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n 2\r\n",
		"a bare CR":                            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\rX-B: 2\r\n",
		"a NUL":                                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: \x00\r\n",
		"another version":                      "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n",
		"another protocol":                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n",
		"no status":                            "HTTP/1.1 OK\r\nContent-Length: 2\r\n",
		"a status of 999":                      "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n",
		"too long":                             "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", maxResponseHeader) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := newFaulty(t, func(conn net.Conn) { io.WriteString(conn, head+"\r\nok") })
			good := newReader(t, nil)
			g := start(t, Config{Readers: []string{bad.addr, good.addr}, CheckInterval: time.Minute})
			g.awaitReady(t, 2)
			for range 2 * refusedLimit {
				if res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil); res.StatusCode != 200 || string(body) != good.addr {
					t.Errorf("%s %q, want the answer of the other reader", res.Status, body)
				}
			}
			if n := bad.tries.Load(); n != refusedLimit {
				t.Errorf("the faulty reader was tried %d times, want %d, then ejected", n, refusedLimit)
			}
		})
	}
}

// serve answers the requests of a connection one after the other.
func serve(conn net.Conn, answers ...string) {
	for _, answer := range answers {
		io.WriteString(conn, answer)
		if readHead(conn) == "" {
			return
		}
	}
}

// TestKeptConnectionIsClosed: if the reader closes a kept connection, the request is repeated on a new one.
func TestKeptConnectionIsClosed(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, deal := range map[string]func(net.Conn){
		"while it is idle":   func(conn net.Conn) { io.WriteString(conn, answer) },
		"with a request":     func(conn net.Conn) { serve(conn, answer) },
		"reset on a request": func(conn net.Conn) { serve(conn, answer); reset(conn) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, deal)
			g := start(t, Config{Readers: []string{r.addr}, CheckInterval: time.Minute})
			g.awaitReady(t, 1)
			for i := range 3 * refusedLimit {
				if res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil); res.StatusCode != 200 || string(body) != "ok" {
					t.Fatalf("read %d: %s %q", i, res.Status, body)
				}
			}
			if r := g.readiness(t); r.Ready != 1 {
				t.Errorf("readiness %+v: the reader was ejected", r)
			}
		})
	}
}

// TestFramings: clients of both versions receive complete bodies of unknown length, and a truncated body is never passed
// off as complete.
func TestFramings(t *testing.T) {
	t.Parallel()
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, test := range map[string]struct {
		answer string
		body   string
		broken bool
	}{
		"chunks":             {answer: chunked + "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", body: "abcde"},
		"no chunk":           {answer: chunked + "0\r\n\r\n"},
		"broken chunks":      {answer: chunked + "3\r\nabc\r\n9\r\nd", broken: true},
		"a malformed chunk":  {answer: chunked + "3\r\nabcd\r\n0\r\n\r\n", broken: true},
		"up to the end":      {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde", body: "abcde"},
		"HTTP/1.0":           {answer: "HTTP/1.0 200 OK\r\n\r\nabcde", body: "abcde"},
		"after an interim":   {answer: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", body: "abcde"},
		"a broken length":    {answer: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcde", broken: true},
		"a repeated length":  {answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", body: "abcde"},
		"without any length": {answer: "HTTP/1.1 204 No Content\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, func(conn net.Conn) { io.WriteString(conn, test.answer) })
			g := start(t, Config{Readers: []string{r.addr}, CheckInterval: time.Minute})
			g.awaitReady(t, 1)
			for _, path := range []string{"/post?id=1", "/post-redis?id=1"} {
				for _, version := range []string{"1.1", "1.0"} {
					c := g.connect(t)
					c.send(t, "GET "+path+" HTTP/"+version+"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
					res, err := http.ReadResponse(c.Reader, nil)
					if err != nil {
						if !test.broken {
							t.Errorf("%s, HTTP/%s: %v", path, version, err)
						}
						continue
					}
					body, err := io.ReadAll(res.Body)
					if isTimeout(err) {
						t.Errorf("%s, HTTP/%s: the connection stays open after a broken answer", path, version)
					}
					if _, typed := res.Header["Content-Type"]; typed || res.Header.Get("Date") == "" {
						t.Errorf("%s, HTTP/%s: header %v, want a Date and no guess of the Content-Type", path, version, res.Header)
					}
					// In HTTP/1.0 the end of a body of unknown length looks like that of a broken one.
					if broken := err != nil; version == "1.1" && broken != test.broken || !test.broken && string(body) != test.body {
						t.Errorf("%s, HTTP/%s: %s %q, %v", path, version, res.Status, body, err)
					}
				}
			}
		})
	}
}

// TestLargeBodyForASlowClient: a body that exceeds all buffers arrives complete.
func TestLargeBodyForASlowClient(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	r := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for i := range size / 4096 {
			w.Write([]byte(strings.Repeat(string(rune('a'+i%26)), 4096)))
		}
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	c := g.connect(t)
	c.send(t, "GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\nGET /post?id=2 HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 2 {
		res, err := http.ReadResponse(c.Reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range size / 4096 {
			var part [4096]byte
			if _, err := io.ReadFull(res.Body, part[:]); err != nil || part != [4096]byte([]byte(strings.Repeat(string(rune('a'+i%26)), 4096))) {
				t.Fatalf("page %d: %.20q %v", i, part, err)
			}
		}
		if n, err := io.Copy(io.Discard, res.Body); n != 0 || err != nil {
			t.Fatal(n, err)
		}
	}
}

// TestTimeoutAfterALargeBody: the deadline of a body does not delay the timeout of the next request on the connection.
func TestTimeoutAfterALargeBody(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	r := newFaulty(t, func(conn net.Conn) {
		io.WriteString(conn, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
		_, _ = io.Copy(io.Discard, conn) // the next request, which stays unanswered
	})
	g := start(t, Config{Readers: []string{r.addr}, CheckInterval: time.Minute, Timeout: time.Second})
	g.awaitReady(t, 1)
	if res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil); res.StatusCode != 200 || len(body) != size {
		t.Fatalf("%s with %d bytes", res.Status, len(body))
	}
	res, body := do(t, http.MethodGet, g.url("/post?id=1"), nil)
	wantProblem(t, res, body, http.StatusGatewayTimeout)
}

// TestOnlyReadsAreRetried: GET and HEAD are retried on other readers, OPTIONS is not.
func TestOnlyReadsAreRetried(t *testing.T) {
	t.Parallel()
	for method, tries := range map[string]int64{http.MethodGet: 3, http.MethodHead: 3, http.MethodOptions: 1} {
		for _, path := range []string{"/post?id=1", "/post-redis?id=1"} { // the first is served by the lane, the second by net/http
			var bad []*faulty
			var addrs []string
			for range 4 {
				f := newFaulty(t, reset)
				bad, addrs = append(bad, f), append(addrs, f.addr)
			}
			g := start(t, Config{Readers: addrs, CheckInterval: time.Minute})
			g.awaitReady(t, len(addrs))
			res, body := do(t, method, g.url(path), nil)
			wantProblem(t, res, body, http.StatusBadGateway)
			var got int64
			for _, f := range bad {
				got += f.tries.Load()
			}
			if got != tries {
				t.Errorf("%s %s was tried %d times, want %d", method, path, got, tries)
			}
		}
	}
}

// TestDrain stops a gateway while clients use kept connections. Every request is answered, and the last answer on each
// connection says Connection: close.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newReader(t, nil)
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	paths := []string{"/post?id=1", "/health"}
	var clients sync.WaitGroup
	var running, closed atomic.Int64
	for i := range 32 {
		c := g.connect(t)
		clients.Go(func() {
			for n := 0; ; n++ {
				request := "GET " + paths[i%2] + " HTTP/1.1\r\nHost: x\r\n\r\n"
				if _, err := io.WriteString(c.Conn, request); err != nil {
					t.Errorf("request %d of client %d: %v", n, i, err)
					return
				}
				res, err := http.ReadResponse(c.Reader, nil)
				if err != nil {
					t.Errorf("answer %d of client %d: %v", n, i, err)
					return
				}
				if body, err := io.ReadAll(res.Body); err != nil || string(body) != r.addr {
					t.Errorf("answer %d of client %d: %q %v", n, i, body, err)
				}
				if n == 0 {
					running.Add(1)
				}
				if res.Close {
					closed.Add(1)
					return
				}
			}
		})
	}
	idle := g.connect(t)
	idle.send(t, "GET /post?id=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	idle.answer(t, http.MethodGet)
	half := g.connect(t)
	half.send(t, "GET /post?id=1 HTTP/1.1\r\nHo")
	eventually.True(t, "all clients have an answer", func() bool { return running.Load() == 32 })
	ended := make(chan error, 1)
	go func() { ended <- g.stop() }()
	clients.Wait()
	if closed.Load() != 32 {
		t.Errorf("%d of 32 clients received Connection: close", closed.Load())
	}
	idle.wantEnd(t)
	half.send(t, "st: x\r\n\r\n")
	if res, _ := half.answer(t, http.MethodGet); res.StatusCode != 200 || !res.Close {
		t.Errorf("half a request at the stop: %s, close %v", res.Status, res.Close)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
