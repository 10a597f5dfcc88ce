package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// These tests compare the two lanes: the same bytes, split into the same pieces, must get the same
// responses from a reader with the fast lane and from one whose fast lane never matches. Plain net/http
// must answer like the latter until a request is refused or the connection is closed.

// lanes are three servers over one replica: a reader, a reader whose fast lane never matches, and net/http
// alone.
type lanes struct {
	fast, std, alone chan net.Conn
	token            protocol.Token       // a version that the replica has reached
	at               protocol.Head        // the head of the replica
	etag             string               // ETag of one of the posts
	taken            *httpkit.HTTPMetrics // metrics of the fast lane only
}

func (l *lanes) position() string { return protocol.Position{Head: l.at}.String() }

// briefly is a short budget, for comparisons with many reads that wait in vain.
const briefly = 10 * time.Millisecond

// newLanes starts the servers. Their reads wait for at most budget.
func newLanes(t testing.TB, budget time.Duration) *lanes {
	t.Helper()
	backend := redistest.StartEmbedded(t)
	nodes := nodetest.New(t, backend.Addr())
	publisher, err := publisher.New(publisher.Config{Redis: nodes})
	if err != nil {
		t.Fatal(err)
	}
	l := &lanes{fast: make(chan net.Conn), std: make(chan net.Conn), alone: make(chan net.Conn)}
	for id, content := range map[string]string{"a": "small", "b-1._~": "other", "large": strings.Repeat("large ", 20_000), "not\"unreserved": "x"} {
		encoded := post.Post{ID: id, Title: "title", Content: content}.Encode(time.Unix(1, 2))
		results, err := publisher.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: id, Value: encoded.Body, Tag: encoded.Sum})
		if err != nil {
			t.Fatal(err)
		}
		l.token, l.etag = results[0].Token, string(post.AppendETag(nil, encoded.Sum))
	}
	results, err := publisher.Write(t.Context(), protocol.Write{Op: protocol.Set, Key: "broken", Value: []byte("no post")})
	if err != nil {
		t.Fatal(err)
	}
	l.at = protocol.Head{Epoch: results[0].Token.Epoch, Version: results[0].Token.Version, WriteID: results[0].WriteID}

	log := slog.New(slog.DiscardHandler)
	replica, err := replica.New(replica.Config{Redis: nodes, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { replica.Run(ctx) })
	deadline := time.Now().Add(20 * time.Second)
	for !replica.Status().Ready {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %+v", replica.Status())
		}
		time.Sleep(time.Millisecond) // between polls
	}

	h := &handler{getter: &getter{replica: replica, budget: budget}}
	signed := newSignature("pod", "https://www.example.org")
	netHTTP := func(name string) *httpkit.HTTPServer {
		router := httpkit.NewRouter(httpkit.NewHTTPMetrics(httpkit.NewRegistry(name)))
		router.Handle(postPath, httpkit.Read(h.serve(fromMemory)))
		return httpkit.NewServer(signed.handler(router), log)
	}
	reader := func(path string, m *httpkit.HTTPMetrics) *fastlane.Server {
		fast := newLane(h.getter, signed, m)
		fast.server = fastlane.New(fastlane.Config{Path: path, Handler: fast.conn, Refuse: fast.refuse, Logger: log, Std: netHTTP("behind " + path)})
		h.hold = fast.server.Hold
		return fast.server
	}
	l.taken = httpkit.NewHTTPMetrics(httpkit.NewRegistry("fast"))
	servers := map[chan net.Conn]httpkit.Server{
		l.fast:  reader(postPath, l.taken),
		l.std:   reader("/ ", httpkit.NewHTTPMetrics(httpkit.NewRegistry("std"))), // no request can have this path
		l.alone: netHTTP("alone"),
	}
	for conns, server := range servers {
		running.Go(func() { _ = server.Serve(listener(conns)) })
	}
	t.Cleanup(func() {
		for conns, server := range servers {
			close(conns)
			_ = server.Close()
		}
		stop()
		running.Wait()
		replica.Close()
	})
	return l
}

// TestLaneAllocatesNothing covers the whole fast lane over TCP: parser, look-up, response and metrics.
func TestLaneAllocatesNothing(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	for _, tt := range []struct{ name, request, status string }{
		{"200", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n", "200"},
		{"HEAD", "HEAD /post?id=a HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		{"304", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\", " + w.etag + "\r\n\r\n", "304"},
		{"no match", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"x\"\r\n\r\n", "200"},
		{"version", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nX-Min-Version: " + w.token.String() + "\r\n\r\n", "200"},
		{"a position", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nX-Min-Version: " + w.position() + "\r\n\r\n", "200"},
		{"cookies", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nCookie: a=b; " + httpkit.VersionCookie + "=" + w.position() + "; c=d\r\n\r\n", "200"},
		{"If-Match", "GET /post?id=a HTTP/1.1\r\nHost: x\r\nIf-Match: \"x\", " + w.etag + "\r\n\r\n", "200"},
		{"a query", "GET /post?x=y&id=%61&z=%20 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n", "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			request, answer := []byte(tt.request), make([]byte, 4096)
			round := func() {
				if _, err := conn.Write(request); err != nil {
					t.Fatal(err)
				}
				if n, err := conn.Read(answer); err != nil || string(answer[:min(n, 12)]) != "HTTP/1.1 "+tt.status {
					t.Fatalf("%q, %v", answer[:n], err)
				}
			}
			round()
			// ristretto occasionally allocates a Get buffer, which averages to less than one allocation per
			// request. Background work of the reader allocates too, so take the minimum of several runs.
			fewest := testing.AllocsPerRun(200, round)
			for range 20 {
				fewest = min(fewest, testing.AllocsPerRun(200, round))
			}
			if fewest != 0 {
				t.Errorf("%v allocations, want 0", fewest)
			}
		})
	}
}

// listener accepts the connections sent to the channel.
type listener chan net.Conn

func (l listener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// script is a fake connection. The server receives one piece per Read, then EOF; its writes are recorded.
type script struct {
	mu      sync.Mutex
	pieces  [][]byte
	answers bytes.Buffer
	broken  error // error that Write returns; nil while the client is connected
	once    sync.Once
	closed  chan struct{}
}

func (s *script) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return 0, s.broken
	}
	return s.answers.Write(b)
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// CloseWrite closes the connection at once; net/http calls it and then waits half a second before Close.
func (s *script) CloseWrite() error                { return s.Close() }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func newScript(pieces ...[]byte) *script {
	return &script{pieces: pieces, closed: make(chan struct{})}
}

// wait waits until the server has closed the connection and returns the responses.
func (s *script) wait(t testing.TB) []string {
	t.Helper()
	select {
	case <-s.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the server did not close the connection within 20 s")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return answersOf(s.answers.String())
}

// exchange sends the pieces to a server and returns its responses.
func exchange(t testing.TB, server chan net.Conn, pieces [][]byte) []string {
	t.Helper()
	s := newScript(slices.Clone(pieces)...)
	server <- s
	return s.wait(t)
}

// answersOf splits a stream into responses: status line, headers without Date in the order of their names,
// and body. If the next response, or the end of the stream, follows the headers at once, it assumes a
// response to HEAD and ignores Content-Length.
func answersOf(stream string) (answers []string) {
	for stream != "" {
		header, rest, ok := strings.Cut(stream, "\r\n\r\n")
		if !ok {
			return append(answers, "CUT "+stream)
		}
		lines := strings.Split(header, "\r\n")
		length := len(rest) // until the end of the connection
		fields := lines[1:]
		fields = slices.DeleteFunc(fields, func(line string) bool { return strings.HasPrefix(line, "Date: ") })
		for _, line := range fields {
			if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				if _, err := fmt.Sscan(n, &length); err != nil {
					return append(answers, "MALFORMED "+stream)
				}
			}
		}
		if strings.Contains(lines[0], " 304 ") || strings.Contains(lines[0], " 100 ") || strings.HasPrefix(rest, "HTTP/1.") {
			length = 0
		}
		slices.Sort(fields)
		length = min(length, len(rest))
		answers = append(answers, lines[0]+"\n"+strings.Join(fields, "\n")+"\n\n"+rest[:length])
		stream = rest[length:]
	}
	return answers
}

// cut splits a stream into random pieces, determined by seed.
func cut(stream []byte, seed uint64) (pieces [][]byte) {
	rng := rand.New(rand.NewPCG(seed, 0))
	longest := 1 << rng.IntN(14)
	for len(stream) > 0 {
		n := min(1+rng.IntN(longest), len(stream))
		pieces = append(pieces, stream[:n:n])
		stream = stream[n:]
	}
	return pieces
}

func (l *lanes) compare(t testing.TB, stream []byte, seed uint64) {
	t.Helper()
	pieces := cut(stream, seed)
	var err error
	for range 50 {
		fast, std, alone := exchange(t, l.fast, pieces), exchange(t, l.std, pieces), exchange(t, l.alone, pieces)
		if !slices.Equal(fast, std) {
			err = fmt.Errorf("the lanes differ:\nwith the fast lane: %q\nwithout: %q", fast, std)
		} else if err = asAlone(std, alone, stream); err != nil {
			err = fmt.Errorf("%w:\nthe reader: %q\nnet/http alone: %q", err, std, alone)
		}
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "HTTP/1.1 503 ") {
			break
		} // else Redis may not have answered one of the servers in time: retry
	}
	t.Fatalf("over %q in pieces of %d: %v", stream, len(pieces), err)
}

// asAlone returns an error if a reader's responses differ from those of net/http alone in a way that is not
// allowed. Allowed are:
//   - closing the connection after a response that announces it,
//   - problem documents in refusals, after which the reader closes the connection,
//   - ignoring empty lines before a request, and refusing the preface of HTTP/2,
//   - refusing two kinds of requests that net/http sometimes accepts: a header that is too long and arrived
//     partly with an earlier request, and blank lines after a POST.
func asAlone(reader, alone []string, stream []byte) error {
	const closing = "\nConnection: close"
	withoutConnection := strings.NewReplacer(closing, "", "\nConnection: keep-alive", "") // the latter in HTTP/1.0
	for i, got := range reader {
		var want string
		if i < len(alone) {
			want = alone[i]
		}
		code := func(answer string) string {
			return answer[min(len(answer), len("HTTP/1.1 ")):min(len(answer), len("HTTP/1.1 200"))]
		}
		switch {
		case got == want:
			continue
		case isMalformed(want) && mayHaveEmptyLine.Match(stream):
			return nil
		case !strings.Contains(got, closing):
			return errors.New("the responses differ")
		case withoutConnection.Replace(got) == withoutConnection.Replace(want):
			return nil
		case !strings.Contains(got, "the request is invalid") && !strings.HasSuffix(got, "\n\n"): // no body: a response to HEAD
			return errors.New("the last responses differ")
		case code(got) == code(want), code(got) == "431", code(got) == "414", code(got) == "505":
			return nil
		case bytes.Contains(stream, []byte("POST ")):
			return nil
		default:
			return errors.New("the refusals differ")
		}
	}
	if len(reader) < len(alone) && isMalformed(alone[len(reader)]) && mayHaveEmptyLine.Match(stream) {
		return nil
	}
	if len(reader) < len(alone) && (len(reader) == 0 || !strings.Contains(reader[len(reader)-1], closing)) {
		return errors.New("a response is missing")
	}
	return nil
}

// mayHaveEmptyLine matches streams in which an empty line may precede a request: at the beginning, after a header, or
// after a body.
var mayHaveEmptyLine = regexp.MustCompile(`(?i)^[\r\n]|\n\r?\n[\r\n]|content-length|transfer-encoding`)

// isMalformed reports whether answer is net/http's refusal of a malformed request line.
func isMalformed(answer string) bool { return strings.HasSuffix(answer, "\n\n400 Bad Request") }

// cases returns plain streams, and streams that servers are known to mishandle.
func (l *lanes) cases() []string {
	request := func(line, fields string) string { return line + "\r\nHost: example.org\r\n" + fields + "\r\n" }
	get := "GET /post?id=a HTTP/1.1"
	plain := request(get, "")
	cases := []string{
		plain, plain + plain + plain, request("HEAD /post?id=a HTTP/1.1", "") + plain,
		request("GET /post?id=b-1._~ HTTP/1.1", "User-Agent: x\r\nAccept: */*\r\n"),
		request("GET /post?id=large HTTP/1.1", "") + request("HEAD /post?id=large HTTP/1.1", "") + plain,
		request("GET /post?id=unknown HTTP/1.1", "") + request("HEAD /post?id=unknown HTTP/1.1", "") + plain,
		request("GET /post?id=broken HTTP/1.1", "") + plain,
		request("GET /post?id="+strings.Repeat("x", 256)+" HTTP/1.1", ""), request("GET /post?id="+strings.Repeat("x", 257)+" HTTP/1.1", "") + plain,
		request("GET /post?id= HTTP/1.1", "") + plain, request("GET /post HTTP/1.1", ""), request("GET /post? HTTP/1.1", ""), request("GET /post?i HTTP/1.1", ""),
		request("GET /post?id=%61 HTTP/1.1", "") + plain, request("GET /post?id=a%2 HTTP/1.1", ""), request("GET /post?id=a+b HTTP/1.1", ""),
		request("GET /post?id=a&id=a HTTP/1.1", ""), request("GET /post?id=a&x=y HTTP/1.1", "") + plain, request("GET /post?x=y&id=a HTTP/1.1", ""),
		request("GET /post?id=a#f HTTP/1.1", ""), request("GET /post?id=not%22unreserved HTTP/1.1", ""), request("GET /post?id=not\"unreserved HTTP/1.1", ""),
		request("GET /post/?id=a HTTP/1.1", ""), request("GET //post?id=a HTTP/1.1", ""), request("GET /posts?id=a HTTP/1.1", ""), request("get /post?id=a HTTP/1.1", ""),
		request("GET http://example.org/post?id=a HTTP/1.1", ""), request("GET * HTTP/1.1", ""), request("OPTIONS * HTTP/1.1", ""), request("CONNECT example.org:80 HTTP/1.1", ""),
		request("GET /post?id=a HTTP/1.0", ""), request("GET /post?id=a HTTP/1.0", "Connection: keep-alive\r\n") + plain, request("GET /post?id=a HTTP/1.2", ""), request("GET /post?id=a HTTP/2.0", ""),
		request("GET /post?id=a  HTTP/1.1", ""), request("GET  /post?id=a HTTP/1.1", ""), request(" GET /post?id=a HTTP/1.1", ""), request("GET /post?id=a HTTP/1.1 ", ""), request("GET\t/post?id=a HTTP/1.1", ""),
		request("GET /post?id=a", ""), "GET /post?id=a\r\n", request("PRI * HTTP/2.0", "") + "SM\r\n\r\n",
		request("POST /post?id=a HTTP/1.1", "Content-Length: 5\r\n") + "hello" + plain, request("DELETE /post?id=a HTTP/1.1", "") + plain, request("PATCH /post?id=a HTTP/1.1", ""), request("BREW /post?id=a HTTP/1.1", ""),
		// bodies, and ambiguous lengths
		request(get, "Content-Length: 0\r\n") + plain, request(get, "Content-Length: 0\r\nContent-Length: 0\r\n") + plain, request(get, "Content-Length: 5\r\n") + "hello" + plain, request(get, "Content-Length: 5\r\nContent-Length: 5\r\n") + "hello" + plain,
		request(get, "Content-Length: 5\r\nContent-Length: 6\r\n") + "hello" + plain, request(get, "Content-Length: 5, 5\r\n") + "hello" + plain, request(get, "Content-Length: +5\r\n") + "hello", request(get, "Content-Length: -1\r\n"),
		request(get, "Content-Length: 0x5\r\n") + "hello", request(get, "Content-Length: 99999999999999999999\r\n"), request(get, "Content-Length:\r\n") + plain, request(get, "content-length: 5\r\n") + "hello" + plain, request(get, "Content-Length : 5\r\n") + "hello" + plain,
		request(get, "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n" + plain, request(get, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n" + plain, request(get, "Transfer-Encoding: identity\r\n") + plain,
		request(get, "Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n", request(get, "Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n", request(get, "Transfer-Encoding:\tchunked\r\n") + "0\r\n\r\n" + plain, request(get, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
		request(get, "transfer-encoding: CHUNKED\r\n") + "0\r\n\r\n" + plain, request(get, "Transfer_Encoding: chunked\r\n") + plain, request(get, "Transfer-Encoding : chunked\r\n") + "0\r\n\r\n" + plain, request(get, " Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + plain,
		request(get, "Expect: 100-continue\r\nContent-Length: 5\r\n") + "hello" + plain, request(get, "Expect: something\r\n"), request(get, "Expect: 100-continue\r\n") + plain,
		// the connection
		request(get, "Connection: close\r\n") + plain, request(get, "Connection: keep-alive\r\n") + plain, request(get, "Connection: Upgrade\r\nUpgrade: websocket\r\n") + plain, request(get, "Upgrade: h2c\r\nHTTP2-Settings: x\r\n") + plain,
		request(get, "Connection: x-min-version\r\nX-Min-Version: bad\r\n") + plain, request(get, "Keep-Alive: timeout=5\r\n") + plain, request(get, "Proxy-Connection: close\r\n") + plain, request(get, "TE: trailers\r\n") + plain, request(get, "Trailer: x\r\n") + plain,
		// hosts
		get + "\r\n\r\n", get + "\r\nHost: a\r\nHost: b\r\n\r\n", get + "\r\nHost:\r\n\r\n" + plain, get + "\r\nHost: \r\n\r\n", get + "\r\nHost: a b\r\n\r\n", get + "\r\nHost: a/b\r\n\r\n" + plain, get + "\r\nHost: [::1]:80\r\n\r\n" + plain, get + "\r\nhOsT: a\r\n\r\n" + plain,
		get + "\r\nHost: a@b\r\n\r\n", get + "\r\nHost: ä\r\n\r\n", get + "\r\nHost: a, b\r\n\r\n", get + "\r\nHost: a\x00b\r\n\r\n", get + "\r\nHost : a\r\n\r\n",
		get + "\r\nHost: ]\r\n\r\n" + plain, get + "\r\nHost: [::1\r\n\r\n" + plain, get + "\r\nHost: a:80:90\r\n\r\n" + plain, get + "\r\nHost: a:\r\n\r\n" + plain, get + "\r\nHost: :80\r\n\r\n" + plain, get + "\r\nHost: a:8x\r\n\r\n" + plain, get + "\r\nHost: ::1\r\n\r\n" + plain, get + "\r\nHost: 127.0.0.1:8081\r\n\r\n" + plain,
		"GET http://[::1/post?id=a HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/post?id=a HTTP/1.1\r\nHost: ]\r\n\r\n" + plain,
		// queries
		request("GET /post?id=a&id=b HTTP/1.1", "") + plain, request("GET /post?x&id=a&&y=%20&z=1;2 HTTP/1.1", "") + plain, request("GET /post?id=a;b HTTP/1.1", "") + plain, request("GET /post?id=a;id=b HTTP/1.1", "") + plain, request("GET /post?%69%64=%61 HTTP/1.1", "") + plain, request("GET /post?id=a+ HTTP/1.1", "") + plain,
		request("GET /post?id=a&x=%zz HTTP/1.1", "") + plain, request("GET /post?id=a&%=1 HTTP/1.1", "") + plain, request("GET /post?id=not%22unreserved&utm=[x]|{y} HTTP/1.1", "") + plain, request("GET /post?id=%00 HTTP/1.1", "") + plain, request("GET /post?id=a?b=c HTTP/1.1", "") + plain, request("GET /post?id=\xff HTTP/1.1", "") + plain, request("GET /post?i%64=a&id=a HTTP/1.1", "") + plain,
		request("GET /post?id="+strings.Repeat("%78", 256)+" HTTP/1.1", "") + plain, request("GET /post?id="+strings.Repeat("%78", 257)+" HTTP/1.1", "") + plain, request("GET /post?"+strings.Repeat("&", 3000)+"id=a HTTP/1.1", "") + plain,
		// options of the connection
		request(get, "Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n") + plain, request(get, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n") + plain, request(get, "Connection: TE, close\r\nTE: deflate,gzip;q=0.3\r\n") + plain,
		request(get, "Connection: Keep-Alive\r\nConnection: CLOSE\r\n") + plain, request(get, "Connection: close, keep-alive\r\n") + plain, request(get, "Connection: closed\r\n") + plain, request(get, "Connection: x close\r\n") + plain, request(get, "Connection: \"close\"\r\n") + plain, request(get, "Connection: ,, \tclose\t,\r\n") + plain, request(get, "Connection:\r\n") + plain, request(get, "Connection: close\xff\r\n") + plain, request("HEAD /post?id=a HTTP/1.1", "Connection: close\r\n") + plain, request("GET /post?id=unknown HTTP/1.1", "Connection: close\r\n") + plain,
		request("GET /post?id=a HTTP/1.0", "Connection: Keep-Alive\r\n") + request("GET /post?id=a HTTP/1.0", "Connection: Keep-Alive\r\nIf-None-Match: *\r\n") + request("HEAD /post?id=a HTTP/1.0", "Connection: keep-alive\r\n") + request("GET /post?id=unknown HTTP/1.0", "Connection: keep-alive\r\n") + plain, "GET /post?id=a HTTP/1.0\r\n\r\n" + plain, "GET /post?id=a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n" + plain,
		request("GET /post?id=a HTTP/1.0", "Connection: keep-alive, close\r\n") + plain, request("GET /post?id=a HTTP/1.0", "Connection: x\r\nConnection: keep-alive\r\n") + plain, request("GET /post?id=a HTTP/1.0", "Connection: close\r\n") + plain, request("GET /post?id=a HTTP/1.0", "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n") + "0\r\n\r\n" + plain, request("POST /post?id=a HTTP/1.0", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: keep-alive\r\n") + "hello" + plain,
		// back from net/http
		request("POST /post?id=a HTTP/1.1", "Content-Length: 5\r\n") + "hello" + request("GET /health HTTP/1.1", "") + plain + request("POST /x HTTP/1.1", "Content-Length: 0\r\n") + plain, request("POST /post?id=a HTTP/1.1", "Content-Length: 5\r\n") + "hello\r\n" + plain, request("POST /post?id=a HTTP/1.1", "Content-Length: 5\r\n") + "hell", request("POST /post?id=a HTTP/1.1", "Content-Length: 300000\r\n") + strings.Repeat("x", 300_000) + plain,
		request("POST /post?id=a HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\nX: y\r\n\r\n" + plain, request("POST /post?id=a HTTP/1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + plain, request("POST /post?id=a HTTP/1.1", "Content-Length: 005\r\n") + "hello" + plain, request("POST /post?id=a HTTP/1.1", "Content-Length:\r\n 5\r\n") + "hello" + plain, request("POST /post?id=a HTTP/1.1", "X: y\r\n Content-Length: 5\r\n") + "hello" + plain, request("GET /x HTTP/1.1", "") + plain[:2], request("GET /x HTTP/1.1", "") + plain[:20],
		"HEAD /" + strings.Repeat("a", 30<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", request("HEAD /post?id=a HTTP/1.1", "X: "+strings.Repeat("x", 40<<10)+"\r\n"), request("HEAD /post?id=a HTTP/1.1", "X : y\r\n"), request("HEAD /post?id=a HTTP/1.1", "Expect: something\r\n"), "HEAD /post?id=a\r\n\r\n",
		// lines
		strings.ReplaceAll(plain, "\r\n", "\n") + plain, get + "\nHost: a\r\n\r\n" + plain, get + "\r\nHost: a\n\r\n" + plain, get + "\r\nHost: a\r\n\n" + plain, get + "\r\nHost: a\r\r\n\r\n" + plain, get + "\rHost: a\r\n\r\n", get + "\r\nHost: a\r\n\rX: y\r\n\r\n",
		request(get, "X: a\r\n b\r\n") + plain, request(get, "X: a\r\n\tb\r\n"), get + "\r\n Host: a\r\n\r\n", request(get, "X\r\n"), request(get, ": x\r\n"), request(get, "X Y: z\r\n"), request(get, "X\t: z\r\n"), request(get, "X: \x00\r\n"), request(get, "X: \x7f\r\n"), request(get, "X: \x01\r\n"),
		request(get, "X: a\rb\r\n") + plain, request(get, "X: \xff\xfe\r\n") + plain, request(get, "X\xff: a\r\n"), request(get, "X(: a\r\n"), request(get, "X!#$%&'*+-.^_`|~9: a\r\n") + plain, request(get, "X:\r\n") + plain, request(get, "X:a\r\n") + plain, request(get, "X:   a   \r\n") + plain, request(get, "X: a\tb\r\n") + plain,
		"\r\n" + plain, "\n" + plain, "\r\n\r\n" + plain, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00", "G", "H", "GET /post?id=a", plain[:len(plain)-1], plain[:len(plain)-2], plain + plain[:20],
		request(get, "X: "+strings.Repeat("x", 8<<10)+"\r\n") + plain, request(get, "X: "+strings.Repeat("x", 15<<10)+"\r\n") + plain, request(get, "X: "+strings.Repeat("x", 40<<10)+"\r\n"), request(get, strings.Repeat("X: y\r\n", 2000)) + plain, request(get, strings.Repeat("X: y\r\n", 9000)),
		"GET /post?id=" + strings.Repeat("a", 30<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		// conditions
		request(get, "If-None-Match: *\r\n") + plain, request("HEAD /post?id=a HTTP/1.1", "If-None-Match: *\r\n") + plain, request("GET /post?id=unknown HTTP/1.1", "If-None-Match: *\r\n"), request(get, "If-None-Match: \r\n"), request(get, "If-None-Match: \"x\", W/\"y\"\r\n"), request(get, "If-None-Match: \"x\r\n"), request(get, "If-None-Match: *\r\nIf-None-Match: \"x\"\r\n") + plain,
		request(get, "X-Min-Version: bad\r\n") + plain, request(get, "X-Min-Version: "+l.token.String()+"\r\n") + plain, request(get, "X-Min-Version: \r\n"), request(get, "X-Min-Version: "+l.token.String()+"\r\nX-Min-Version: "+l.token.String()+"\r\n"),
		request(get, "X-Min-Version: "+protocol.Token{Epoch: l.token.Epoch + 1, Version: 99}.String()+"\r\n"), request(get, "x-min-version: "+protocol.Token{Epoch: l.token.Epoch, Version: 1}.String()+"\r\nif-none-match: *\r\n"),
		request(get, "Range: bytes=0-1\r\n"), request(get, "If-Match: \"x\"\r\n") + plain, request("HEAD /post?id=a HTTP/1.1", "If-Match: \"x\"\r\n") + plain, request(get, "If-Match: *\r\nIf-None-Match: *\r\n") + plain, request(get, "If-Match: \"x\"\r\nIf-Match: *\r\n") + plain, request("GET /post?id=unknown HTTP/1.1", "If-Match: *\r\n") + plain, request(get, "If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT\r\n"), request(get, "Accept-Encoding: gzip\r\n"), request(get, "Authorization: Basic x\r\nCookie: a=b; c\r\n"),
	}
	own := httpkit.VersionCookie + "=" + l.position()
	for _, cookie := range []string{own, "a=b; " + own, own + "; a=b", "a=\"" + own, "x" + own, own + "x", httpkit.VersionCookie + "=", httpkit.VersionCookie, ";" + own + ";" + own, strings.ToUpper(own),
		httpkit.VersionCookie + "=" + l.token.String(), own + "\r\nX-Min-Version: " + l.token.String(), own + "\r\nX-Min-Version: bad", "a=b\r\nCookie: " + own, own + "\r\nCookie: " + own, "\r\nCookie:"} {
		cases = append(cases, request(get, "Cookie: "+cookie+"\r\n")+plain)
	}
	for _, min := range []string{"Latest", "latest, latest", "latest\r\nX-Min-Version: latest", l.position(), l.position() + "~", l.position() + "0"} {
		cases = append(cases, request(get, "X-Min-Version: "+min+"\r\n")+plain)
	}
	for _, id := range []string{"a", "b-1._~", "large"} {
		for _, list := range []string{l.etag, "W/" + l.etag, "\"x\", " + l.etag, ",, " + l.etag + " ,", l.etag + " x", "x, " + l.etag} {
			for _, field := range []string{"If-None-Match: ", "If-Match: "} {
				cases = append(cases, request("GET /post?id="+id+" HTTP/1.1", field+list+"\r\n")+plain)
			}
		}
	}
	return cases
}

// random returns a stream of requests made of random lines, fields and bodies that are likely to matter.
func (l *lanes) random(rng *rand.Rand) []byte {
	one := func(all ...string) string { return all[rng.IntN(len(all))] }
	var stream strings.Builder
	for range 1 + rng.IntN(4) {
		stream.WriteString(one("GET", "GET", "GET", "HEAD", "POST") + " " + one("/post?", "/post?", "/post?", "/post", "/x?"))
		for range rng.IntN(4) {
			stream.WriteString(one("id=a", "id=a", "id=%61", "id=large", "id=unknown", "id=", "id", "x=y", "%69d=a", "+", "a+b", ";", "&", "&", "%", "%4", "#", "\"", "=", "?", "\xff"))
			stream.WriteString(one("&", "&", ""))
		}
		stream.WriteString(" " + one("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0") + "\r\n" + one("Host: a", "Host: a", "Host: a:80", "Host: [::1]:80", "Host: a:80:90", "Host: ]", "X: y") + "\r\n")
		body := 0
		for range rng.IntN(5) {
			switch rng.IntN(8) {
			case 0, 1, 2:
				stream.WriteString(one("Connection", "Connection", "connection", "Keep-Alive", "Proxy-Connection") + ":")
				for range rng.IntN(4) {
					stream.WriteString(one("close", "keep-alive", "Keep-Alive", "Upgrade", "HTTP2-Settings", "TE", ",", ",", " ", "\t", " , ", "\"", "x"))
				}
			case 3:
				body = rng.IntN(6)
				fmt.Fprintf(&stream, "Content-Length: %d", body)
			case 4:
				stream.WriteString(one("If-Match: ", "If-None-Match: ") + one("*", l.etag, "W/"+l.etag, `"x"`, `"x", `+l.etag, "x"))
			case 5:
				stream.WriteString(one("X-Min-Version: ", "Cookie: ", "Cookie: a=b; ") + one("", httpkit.VersionCookie+"=") + one(l.token.String(), l.position(), "x"))
			case 6:
				stream.WriteString(one("Upgrade: h2c", "TE: trailers", "Trailer: x", "Expect: 100-continue", "Transfer-Encoding: chunked", "X: a\r\n b", "User-Agent: \tx\x80", "Accept:", " X: y", "X : y"))
			default:
				stream.WriteString("Accept: */*")
			}
			stream.WriteString(one("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", " \r\n"))
		}
		stream.WriteString("\r\n" + "hello"[:body])
	}
	return []byte(stream.String())
}

func TestLanesAnswerAlikeAtRandom(t *testing.T) {
	l := newLanes(t, briefly)
	for seed := range uint64(3000) {
		l.compare(t, l.random(rand.New(rand.NewPCG(seed, 1))), seed)
	}
}

func TestLanesAnswerAlike(t *testing.T) {
	l := newLanes(t, briefly)
	for _, c := range l.cases() {
		for _, seed := range []uint64{1, 2, 3} {
			l.compare(t, []byte(c), seed)
		}
	}
	// A request that is cut off at every byte, after a complete one.
	plain := "GET /post?id=a HTTP/1.1\r\nHost: example.org\r\nX: y\r\n\r\n"
	for n := range len(plain) {
		l.compare(t, []byte(plain+plain[:n]), uint64(n))
	}
}

// TestLanesWaitAlike compares reads that ask Redis for its head. They get the time that they may need.
func TestLanesWaitAlike(t *testing.T) {
	l := newLanes(t, waitBudget)
	lost := l.at
	lost.WriteID++
	unknown := protocol.Position{Head: lost}.String()
	for _, field := range []string{"X-Min-Version: latest", "x-min-version:latest ", "X-Min-Version: " + unknown, "Cookie: " + httpkit.VersionCookie + "=" + unknown,
		"Cookie: a=b\r\nCookie: " + httpkit.VersionCookie + "=" + unknown, "X-Min-Version: latest\r\nCookie: " + httpkit.VersionCookie + "=" + unknown} {
		for _, id := range []string{"a", "unknown", "large", ""} {
			l.compare(t, []byte("GET /post?id="+id+" HTTP/1.1\r\nHost: a\r\n"+field+"\r\n\r\n"), 1)
		}
	}
	if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "200")); got < 10 {
		t.Errorf("%v requests in the fast lane got a post, want at least those of 5 fields for 2 posts", got)
	}
}

// TestFastLaneMatches checks that the fast lane serves requests of its shape. Otherwise the comparisons
// above would compare net/http with itself.
func TestFastLaneMatches(t *testing.T) {
	l := newLanes(t, briefly)
	plain := "GET /post?id=a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nIf-None-Match: \"x\"\r\nX-Min-Version: " + l.token.String() + "\r\nCookie: a=b; " + httpkit.VersionCookie + "=" + l.position() + "\r\n\r\n"
	head := strings.Replace(plain, "GET", "HEAD", 1)
	unknown := strings.Replace(plain, "id=a", "id=unknown", 1)
	matching := strings.Replace(plain, `"x"`, "*", 1)
	malformed := strings.Replace(plain, l.token.String(), "x", 1)
	changed := strings.Replace(plain, "If-None-Match", "If-Match", 1)
	l.compare(t, []byte(plain+head+unknown+plain+matching+malformed+changed), 1)
	for want, labels := range map[float64][]string{2: {"get", "200"}, 1: {"head", "200"}} {
		if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, labels[0], labels[1])); got != want {
			t.Errorf("%v requests of %v in the fast lane, want %v", got, labels, want)
		}
	}
	for _, code := range []string{"404", "304", "400", "412"} {
		if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", code)); got != 1 {
			t.Errorf("%v requests with status %s in the fast lane, want 1", got, code)
		}
	}
	// Queries that need parsing, HTTP/1.0 and Connection: close, all after a request for the std lane.
	before := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "200"))
	l.compare(t, []byte("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"+
		"GET /post?id=%61 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"+
		"GET /post?x=%20&id=a&y;z=[1] HTTP/1.1\r\nHost: a\r\n\r\n"+
		"GET /post?id=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"+
		"GET /post?id=a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 2)
	if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "200")) - before; got != 4 {
		t.Errorf("%v requests in the fast lane, want 4", got)
	}
}

func FuzzLanes(f *testing.F) {
	l := newLanes(f, briefly)
	for i, c := range l.cases() {
		f.Add([]byte(c), uint64(i))
	}
	for seed := range uint64(100) {
		f.Add(l.random(rand.New(rand.NewPCG(seed, 2))), seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		l.compare(t, stream, seed)
	})
}
