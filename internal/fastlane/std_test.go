package fastlane

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// forNetHTTP has requests that the fast lane leaves to net/http.
var forNetHTTP = map[string]string{
	"another path":      "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
	"a body":            "POST /post?id=3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	"an empty body":     "PUT /other HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
	"a large body":      "POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("GET /post?", 10_000),
	"no query":          "GET /post HTTP/1.1\r\nHost: a\r\n\r\n",
	"HTTP/1.0":          "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"bare line feeds":   "GET /health HTTP/1.1\nHost: a\n\n",
	"an IPv6 address":   "GET /post?id=3 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"two equal lengths": "POST /other HTTP/1.1\r\nHost: a\r\nX: Content-Length: 9\r\nContent-Length:   5  \r\n\r\nhello",
}

// After a request for net/http, the connection returns to the fast lane.
func TestConnectionsReturnToTheFastLane(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for name, request := range forNetHTTP {
			t.Run(name, func(t *testing.T) {
				f := start(t)
				c := dial(t, f)
				r := bufio.NewReader(c)
				for i := range 3 {
					send(t, c, request)
					if res, _ := answer(t, r); res.Header.Get("X-Lane") != "std" || res.StatusCode != 200 || res.Close {
						t.Fatalf("%s, close %v, from the %s lane", res.Status, res.Close, res.Header.Get("X-Lane"))
					}
					send(t, c, get(fmt.Sprint(i)))
					expect(t, r, fast, fmt.Sprint("post ", i))
				}
				// The same requests, pipelined.
				go func() { _, _ = io.WriteString(c, strings.Repeat(get("1")+request+request+get("2"), 20)) }()
				for range 20 {
					expect(t, r, fast, "post 1")
					answer(t, r)
					answer(t, r)
					expect(t, r, fast, "post 2")
				}
				if n := f.connCount(); n != 1 {
					t.Errorf("%d connections, want 1", n)
				}
			})
		}
	})
}

// Bytes that arrive while a net/http handler runs are not lost, although net/http reads one of them.
func TestRequestsDuringAHandler(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for _, behind := range []string{get("1"), get("1") + get("2")[:1], get("1")[:1], get("1")[:3], "P", "\r", "\r\n\r\n" + get("1")[:3]} {
			t.Run(fmt.Sprintf("%.5q", behind), func(t *testing.T) {
				f := start(t)
				c := dial(t, f)
				_ = c.(*net.TCPConn).SetNoDelay(true)
				send(t, c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
				eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
				send(t, c, behind)
				f.waitTicks(t, 1)
				close(f.release)
				r := bufio.NewReader(c)
				expect(t, r, "std", "post ")
				whole := get("1") + get("2")
				if behind == "P" {
					whole = "POST /post?id=1 HTTP/1.1\r\nHost: a\r\n\r\n" + get("2")
				}
				if strings.HasPrefix(behind, "\r") {
					whole = behind[:blankLength([]byte(behind))] + whole
				}
				send(t, c, whole[len(behind):])
				if res, content := answer(t, r); res.StatusCode != 200 || content != "post 1" {
					t.Fatal(res.Status, content)
				}
				expect(t, r, fast, "post 2")
			})
		}
	})
}

// A client that half-closes its connection while net/http answers receives all answers and the end of the stream.
func TestHalfClosedDuringAHandler(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t)
		c := dial(t, f)
		send(t, c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"+get("1"))
		eventually.True(t, "waiting handler", func() bool { return f.waiting.Load() == 1 })
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		close(f.release)
		r := bufio.NewReader(c)
		expect(t, r, "std", "post ")
		expect(t, r, fast, "post 1")
		closed(t, r)
		eventually.True(t, "end of the connection", func() bool { return f.connCount() == 0 })
	})
}

// The timeouts of net/http do not apply after its request; those of the fast lane do.
func TestTimeoutsAfterNetHTTP(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		f := start(t, func(c *Config) {
			c.Std.ReadTimeout, c.Std.WriteTimeout, c.Std.IdleTimeout = 2*sweepPause, 2*sweepPause, 8*sweepPause
		})
		c := dial(t, f)
		r := bufio.NewReader(c)
		send(t, c, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
		expect(t, r, "std", "post ")
		f.waitTicks(t, 4)
		send(t, c, get("1"))
		expect(t, r, fast, "post 1")
		send(t, c, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
		expect(t, r, "std", "post ")
		began := time.Now()
		closed(t, r)
		if took := time.Since(began); took < 6*sweepPause {
			t.Errorf("closed after %v, want at least %v", took, 6*sweepPause)
		}
	})
}

// After a request with ambiguous framing, no second request is read from the connection.
func TestAmbiguousFramingEndsTheConnection(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for name, request := range map[string]string{
			"chunked":                       "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"both":                          "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"both, in the other order":      "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\ncontent-length: 60\r\n\r\n0\r\n\r\n",
			"Transfer-Encoding in HTTP/1.0": "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"both in HTTP/1.0":              "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
			"bare line feeds":               "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0\r\n\r\n",
			"two lengths of zero":           "GET /post?id= HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
			"two lengths":                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			"a folded line":                 "POST / HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: 5\r\n\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				f := start(t)
				c := dial(t, f)
				r := bufio.NewReader(c)
				send(t, c, request+get("smuggled")+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
				expectLast(t, r, "std", "post ")
				_ = c.Close()
				eventually.True(t, "end of the connection", func() bool { return f.connCount() == 0 })
			})
		}
	})
}

// badRequests has requests that are refused before they reach a handler, with the status of the refusal.
var badRequests = map[string]struct {
	request string
	status  int
}{
	"bare LF ends the header": {"GET /post?id=1 HTTP/1.1\r\n\n", 400},
	"no request line":         {"hello\r\n", 400},
	"no version":              {"GET /\r\n", 400},
	"HTTP/2":                  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	"an unknown version":      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
	"no Host":                 {"GET /post?id=1 HTTP/1.1\r\n\r\n", 400},
	"two Hosts":               {"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
	"a malformed name":        {"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
	"a control character":     {"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400},
	"lengths":                 {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
	"an unknown encoding":     {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
	"unknown expectation":     {"GET / HTTP/1.1\r\nHost: a\r\nExpect: something\r\n\r\n", 417},
	"a long URL":              {"GET /post?id=" + longText + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
	"a long path":             {"GET /" + longText + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
	"a long header":           {"GET /post?id=1 HTTP/1.1\r\nHost: a\r\nX: " + longText + "\r\n\r\n", 431},
	"many lines":              {"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", maxReadBuffer/6) + "\r\n", 431},
}

var longText = strings.Repeat("x", maxReadBuffer)

// A request that is refused in either lane is answered by Config.Refuse, and the connection is closed.
func TestRefusals(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for name, tt := range badRequests {
			t.Run(name, func(t *testing.T) {
				f := start(t)
				for _, method := range []string{"GET", "HEAD"} {
					for _, before := range []string{"", get("1"), "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"} {
						c := dial(t, f)
						r := bufio.NewReader(c)
						rest, get := strings.CutPrefix(tt.request, "GET")
						request := method + rest
						if !get {
							request, method = rest, "GET"
						}
						go func() { _, _ = io.WriteString(c, before+request) }()
						if before != "" {
							answer(t, r)
						}
						res, err := http.ReadResponse(r, &http.Request{Method: method})
						if err != nil {
							t.Fatal(err)
						}
						body, err := io.ReadAll(res.Body)
						if err != nil {
							t.Fatal(err)
						}
						if res.StatusCode != tt.status || res.Header.Get("X-Lane") != "refused" || !res.Close {
							t.Errorf("%s, close %v, from %q, want %d", res.Status, res.Close, res.Header.Get("X-Lane"), tt.status)
						}
						if (method == "HEAD") != (len(body) == 0) {
							t.Errorf("%s: body %q, want one except for HEAD", method, body)
						}
						closed(t, r)
					}
				}
			})
		}
	})
}

// Empty lines before a request are ignored: at the beginning of a connection, after a body and between requests, and
// whether they arrive together with the request or alone.
func TestEmptyLinesBeforeARequest(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		for _, blank := range []string{"\r\n", "\n", "\r\n\r\n\r\n"} {
			for _, together := range []bool{true, false} {
				f := start(t)
				c := dial(t, f)
				r := bufio.NewReader(c)
				for range 2 {
					for _, tt := range []struct{ request, lane, content string }{
						{get("1"), fast, "post 1"}, {postRequest, "std", "post 3"}, {postRequest, "std", "post 3"}, {get("2"), fast, "post 2"},
					} {
						if together {
							send(t, c, blank+tt.request)
						} else {
							send(t, c, blank[:1])
							f.waitTicks(t, 1)
							send(t, c, blank[1:])
							send(t, c, tt.request)
						}
						if res := expect(t, r, tt.lane, tt.content); res.Close {
							t.Fatalf("after %q: the connection is closed", blank)
						}
					}
				}
				f.Drain()
				send(t, c, get("4")+blank)
				expectLast(t, r, fast, "post 4")
			}
		}
	})
}

// The refusal of an expectation says what to change.
func TestUnknownExpectation(t *testing.T) {
	f := start(t)
	c := dial(t, f)
	send(t, c, badRequests["unknown expectation"].request)
	if _, body := answer(t, bufio.NewReader(c)); !strings.Contains(body, "send no other Expect") {
		t.Errorf("%q", body)
	}
}
