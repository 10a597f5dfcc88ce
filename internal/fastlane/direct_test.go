package fastlane

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
)

// withPosts configures a server that passes POST /create to the handler directly.
func withPosts(c *Config) { c.Path, c.Handler, c.Post = "", nil, "/create" }

// mirrors makes the handler of net/http answer with a description of the request. X-Lane names the lane.
func mirrors(c *Config) {
	c.Std = httpkit.Track(&http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			lane := "std"
			if r.Context().Value(stdConnKey{}) == nil {
				lane = "fast"
			}
			w.Header().Set("X-Lane", lane)
			body, err := io.ReadAll(r.Body)
			names := make([]string, 0, len(r.Header))
			for name := range r.Header {
				if name != "Cache-Control" { // net/http adds it for Pragma
					names = append(names, name)
				}
			}
			slices.Sort(names)
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s %s %s %q %s %q close=%v length=%d %v %v\n", r.Method, r.RequestURI, r.Proto, r.URL, r.Host, r.TransferEncoding, r.Close, r.ContentLength, err, r.RemoteAddr != "")
			for _, name := range names {
				fmt.Fprintf(&b, "%s: %q\n", name, r.Header[name])
			}
			fmt.Fprintf(&b, "%q\n", body)
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write(b.Bytes())
		}),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 10 * time.Second,
	})
}

// create returns a POST for the fast lane.
func create(body string, fields ...string) string {
	return fmt.Sprintf("POST /create HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s", len(body), strings.Join(append(fields, ""), "\r\n"), body)
}

// expectMirror reads an answer of mirrors from a lane and checks that its handler has received the body.
func expectMirror(t testing.TB, r *bufio.Reader, lane, body string) *http.Response {
	t.Helper()
	res, content := answer(t, r)
	if got := res.Header.Get("X-Lane"); got != lane || res.StatusCode != 201 || !strings.HasSuffix(content, fmt.Sprintf("\n%q\n", body)) {
		t.Fatalf("%s from the %s lane: %q; want the body %q from the %s lane", res.Status, got, content, body, lane)
	}
	return res
}

// The writes of common clients that send header and body together are passed on directly.
func TestPostsOfRealClients(t *testing.T) {
	for name, header := range map[string]string{
		"curl":       "Host: localhost:8080\nUser-Agent: curl/7.88.1\nAccept: */*\nContent-Type: application/json\nContent-Length: 5",
		"Go":         "Host: localhost:8080\nUser-Agent: Go-http-client/1.1\nContent-Length: 5\nContent-Type: application/json\nAccept-Encoding: gzip",
		"node fetch": "host: localhost:8080\nconnection: keep-alive\ncontent-type: application/json\naccept: */*\naccept-language: *\nsec-fetch-mode: cors\nuser-agent: node\naccept-encoding: gzip, deflate\ncontent-length: 5",
		"conditions": "Host: a\nContent-Length: 5\nIf-Match: \"a\"\nAuthorization: Bearer secret\nOrigin: http://b",
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, withPosts, mirrors)
			c := dial(t, f)
			r := bufio.NewReader(c)
			request := "POST /create HTTP/1.1\r\n" + strings.ReplaceAll(header, "\n", "\r\n") + "\r\n\r\nhello"
			for range 2 {
				send(t, c, request)
				if res := expectMirror(t, r, "fast", "hello"); res.Close || res.Header.Get("Date") == "" {
					t.Fatalf("closing: %v, header %v", res.Close, res.Header)
				}
			}
			send(t, c, strings.Repeat(request, 50))
			for range 50 {
				expectMirror(t, r, "fast", "hello")
			}
		})
	}
}

// returns checks that requests on a connection are answered in the fast lane again. net/http also answers a request whose
// first byte it has read before it has finished the previous one.
func returns(t testing.TB, c net.Conn, r *bufio.Reader) {
	t.Helper()
	eventually.True(t, "answer from the fast lane", func() bool {
		send(t, c, create("again"))
		res, content := answer(t, r)
		if res.StatusCode != 201 || !strings.HasSuffix(content, "\n\"again\"\n") {
			t.Fatal(res.Status, content)
		}
		return res.Header.Get("X-Lane") == "fast"
	})
}

// Requests that net/http must answer do not keep the next ones on their connection out of the fast lane.
func TestPostsForNetHTTP(t *testing.T) {
	for name, request := range map[string]string{
		"another path":      strings.Replace(create("hello"), "/create", "/import", 1),
		"a longer path":     strings.Replace(create("hello"), "/create", "/created", 1),
		"a query":           strings.Replace(create("hello"), "/create", "/create?x=y", 1),
		"another method":    strings.Replace(create("hello"), "POST", "PUT", 1),
		"HTTP/1.0":          strings.Replace(create("hello", "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1),
		"an IPv6 address":   strings.Replace(create("hello"), "Host: a", "Host: [::1]", 1),
		"two conditions":    create("hello", `If-Match: "a"`, `If-Match: "b"`),
		"more than 4 KiB":   create(strings.Repeat("x", 5000)),
		"no body":           "POST /create HTTP/1.1\r\nHost: a\r\n\r\n",
		"an empty body":     create(""),
		"100-continue":      create("hello", "Expect: 100-continue"),
		"a large body":      create(strings.Repeat("x", 100_000)),
		"GET without query": "GET /create HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET of no path":    "GET /?x HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, withPosts, mirrors)
			c := dial(t, f)
			r := bufio.NewReader(c)
			for range 3 {
				send(t, c, request)
				res, _ := answer(t, r)
				if res.StatusCode == http.StatusContinue {
					res, _ = answer(t, r)
				}
				if res.StatusCode != 201 || res.Header.Get("X-Lane") != "std" {
					t.Fatalf("%s from the %s lane", res.Status, res.Header.Get("X-Lane"))
				}
				returns(t, c, r)
			}
		})
	}
	t.Run("chunks", func(t *testing.T) { // closes the connection, because the length is ambiguous to the fast lane
		f := start(t, withPosts, mirrors)
		c := dial(t, f)
		send(t, c, "POST /create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"+create("2"))
		r := bufio.NewReader(c)
		if res, content := answer(t, r); res.StatusCode != 201 && res.StatusCode != 400 || !res.Close {
			t.Fatal(res.Status, content)
		}
		closed(t, r)
	})
}

// A body that arrives after its header is read by net/http, which has the timeouts for it.
func TestPostSplitAtEveryByte(t *testing.T) {
	request := create("hello world", "X: y")
	header := strings.Index(request, "\r\n\r\n") + len("\r\n\r\n")
	for n := 1; n < len(request); n++ {
		f := start(t, withPosts, mirrors)
		c := dial(t, f)
		_ = c.(*net.TCPConn).SetNoDelay(true)
		send(t, c, request[:n])
		lane, waits := "fast", reading
		if n >= header {
			lane, waits = "std", left
		}
		eventually.Nil(t, func() error {
			if p := f.phase(); p != waits {
				return fmt.Errorf("split at byte %d: phase %d, want %d", n, p, waits)
			}
			return nil
		})
		send(t, c, request[n:])
		r := bufio.NewReader(c)
		expectMirror(t, r, lane, "hello world")
		returns(t, c, r)
		_ = f.Close()
	}
}

// While a handler runs in net/http, net/http may read the first byte of the next request. That request then belongs to it.
func TestPostDuringAHandler(t *testing.T) {
	for _, behind := range []string{create("1") + create("2"), create("1")[:1], create("1")[:20], "\r\n" + create("1")[:1]} {
		t.Run(fmt.Sprintf("%d bytes", len(behind)), func(t *testing.T) {
			waiting, release := make(chan struct{}), make(chan struct{})
			f := start(t, withPosts, func(c *Config) {
				mirrors(c)
				mirror := c.Std.Handler
				c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/wait" {
						close(waiting)
						<-release
					}
					mirror.ServeHTTP(w, r)
				})
			})
			c := dial(t, f)
			send(t, c, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
			<-waiting
			send(t, c, behind)
			f.waitTicks(t, 1) // net/http reads ahead
			close(release)
			r := bufio.NewReader(c)
			expectMirror(t, r, "std", "")
			whole := create("1") + create("2")
			if behind[0] == '\r' {
				whole = "\r\n" + whole
			}
			send(t, c, whole[len(behind):])
			expectMirror(t, r, "std", "1")
			if res, content := answer(t, r); res.StatusCode != 201 || !strings.HasSuffix(content, "\n\"2\"\n") {
				t.Fatal(res.Status, content)
			}
			returns(t, c, r)
		})
	}
}

// A handler that panics closes its connection without an answer, as in net/http, and the server continues.
func TestPanicOfADirectHandler(t *testing.T) {
	f := start(t, withPosts, func(c *Config) {
		mirrors(c)
		mirror := c.Std.Handler
		c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Panic") != "" {
				panic(http.ErrAbortHandler)
			}
			mirror.ServeHTTP(w, r)
		})
	})
	c, other := dial(t, f), dial(t, f)
	send(t, c, create("1")+create("2", "X-Panic: 1")+create("3"))
	r := bufio.NewReader(c)
	expectMirror(t, r, "fast", "1")
	closed(t, r)
	send(t, other, create("4"))
	expectMirror(t, bufio.NewReader(other), "fast", "4")
}

// A request that is being served when the drain begins is answered, with Connection: close.
func TestDrainDuringADirectHandler(t *testing.T) {
	waiting, release := make(chan struct{}), make(chan struct{})
	f := start(t, withPosts, func(c *Config) {
		mirrors(c)
		mirror := c.Std.Handler
		c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(waiting)
			<-release
			mirror.ServeHTTP(w, r)
		})
	})
	c := dial(t, f)
	send(t, c, create("1"))
	<-waiting
	done := make(chan error, 1)
	go func() { done <- f.Server.Shutdown(t.Context()) }()
	eventually.True(t, "drain", f.draining.Load)
	close(release)
	r := bufio.NewReader(c)
	if res := expectMirror(t, r, "fast", "1"); !res.Close {
		t.Error("the answer does not carry Connection: close")
	}
	closed(t, r)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// FuzzPosts compares the answers of a server that passes posts on directly with those of net/http behind the same server.
func FuzzPosts(f *testing.F) {
	for _, stream := range []string{
		create("hello") + create("again", "Connection: close") + create("never"),
		create("hello", "X: a", "x:  b ", "X-y: \t c", "Pragma: no-cache"), create("a") + get("1") + create("b"), "\r\n\r\n" + create("a") + "\n" + create("b"),
		create("hello") + "POST /create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + create("b"),
		strings.Replace(create("hello"), "5", "05", 1), strings.Replace(create("hello"), "5", "+5", 1), strings.Replace(create("hello"), "5", "5, 5", 1),
		create("hello", "Content-Length: 5"), create("hello", "Content-Length: 6"), create("hello", "Host: b"), create("hello", "X : y"), create("hello", "X: a", " folded"),
		create("hello")[:50], create("hello") + create("hello")[:20], create("hello", "Expect: 100-continue") + create("a"), create("hello", "Connection: x, close"),
		strings.ReplaceAll(create("hello"), "\r", ""), create("hello", "Trailer: x", "Upgrade: h2c", "Connection: Upgrade"), create("\x00\xff\r\n\r\n") + create("a"),
		create("hello", "Transfer-Encoding: identity"), create("hello", "X_y: z", "~: 1", "A:"), create(strings.Repeat("x", 3000)) + create(strings.Repeat("y", 3000)),
	} {
		f.Add([]byte(stream))
	}
	for from, variants := range map[string][]string{ // parts of a request, and what may be in their place
		"/create":        {"http://b/create", "/%63reate", "/create#f", "/create?", "//create", "/create ", "/Create", "/create/"},
		"POST ":          {"post ", "POST\t", " POST ", "POST  ", "\x00POST "},
		"HTTP/1.1":       {"HTTP/1.1 ", "HTTP/1.2", "HTTP/1.10", "HTTP/1.0", "HTTP/01.1", "http/1.1", "HTTP/1.1\r"},
		"Host: a":        {"Host:", "Host : a", "Host: a, b", "Host: a\tb", "hOST: A_b:", "Host: a:80:90", "Host: a\x00", "X: y"},
		"Content-Length": {"CONTENT-length", "Content_Length", "Content-Length ", " Content-Length", "Content-Length\x00"},
		": 5": {
			":5", ": \t5\t ", ": 000000000000000005", ": 0000000000000000000005", ": 0x5", ": -5", ": 5_0", ":", ": 5\x00", ": 5\r\n 0", ": 5\r", ": 5\n", ": 5,",
			": 5\r\ntRANSFER-encoding: CHUNKED", ": 5\r\nTransfer-Encoding:\r\n chunked", ": 5\r\nX: y\r\n Transfer-Encoding: chunked",
			": 5\r\nTransfer-Encoding: chunked\x0b", ": 5\r\nTransfer-Encoding\x00: chunked", ": 5\r\n\rTransfer-Encoding: chunked",
			": 5\r\nX: y\rTransfer-Encoding: chunked", ": 5\r\nX: y\nTransfer-Encoding: chunked", ": 5\r\nTransfer-Encoding : chunked",
			": 5\r\nEXPECT: 100-Continue", ": 5\r\nExpect:", ": 5\r\nConnection: close\r\nConnection: keep-alive", ": 5\r\nConnection:",
			": 5\r\nConnection: \"close\"", ": 5\r\nCookie: a=b\r\nCookie: c=d", ": 5\r\nX:  \xff\t z \t", ": 5" + strings.Repeat("\r\na:", 1000),
			": 5\r\nX: " + strings.Repeat("x", 12<<10), ": 5\r\nX: " + strings.Repeat("x", 16<<10),
		},
		"hello": {"hello\x00", "hellohello", "hello\r\n", "hell"},
	} {
		for _, to := range variants {
			f.Add([]byte(strings.Replace(create("hello"), from, to, 1) + create("a") + create("b")))
		}
	}
	direct, std := start(f, withPosts, mirrors, withDefaultRefusals), start(f, withoutLane, mirrors, withDefaultRefusals)
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 64<<10 {
			return
		}
		got, want := answersOf(t, direct, stream), answersOf(t, std, stream)
		if got != want {
			t.Fatalf("over %q:\ndirectly: %q\nnet/http: %q", stream, got, want)
		}
	})
}

// answersOf sends stream, half-closes the connection, and returns all answers: with their lines sorted, because the order
// of fields has no meaning, and without those that differ from request to request.
func answersOf(t testing.TB, f *fixture, stream []byte) string {
	c := dial(t, f)
	defer c.Close()
	go func() {
		_, _ = c.Write(stream)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%v after %q", err, text)
	}
	lines := strings.Split(string(text), "\r\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "Date: ") || strings.HasPrefix(line, "X-Lane: ")
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Close does not wait for a handler, also on a connection that net/http has.
func TestCloseDuringADirectHandler(t *testing.T) {
	for name, before := range map[string]int{"fast lane": 0, "net/http": 1} {
		t.Run(name, func(t *testing.T) {
			waiting, release := make(chan struct{}), make(chan struct{})
			f := start(t, withPosts, func(c *Config) {
				mirrors(c)
				mirror := c.Std.Handler
				c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost {
						close(waiting)
						<-release
					}
					mirror.ServeHTTP(w, r)
				})
			})
			c := dial(t, f)
			r := bufio.NewReader(c)
			for range before {
				send(t, c, get("1"))
				expectMirror(t, r, "std", "")
			}
			send(t, c, create("1"))
			<-waiting
			var closed atomic.Bool
			go func() {
				_ = f.Server.Close()
				closed.Store(true)
			}()
			defer close(release) // also after a failure, before the server is stopped
			eventually.True(t, "end of Close", closed.Load)
		})
	}
}
