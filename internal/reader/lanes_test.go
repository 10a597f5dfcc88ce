package reader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"heavy-read-api/internal/cache"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redisnode/nodetest"
	"heavy-read-api/internal/redistest"
	"heavy-read-api/internal/service"
)

// The two lanes are held against each other: the same bytes, cut into the same pieces, must get the
// same answers from a server that has the fast lane and from net/http alone.

// lanes are the two servers, over one replica.
type lanes struct {
	fast, std chan net.Conn
	token     cache.Token
	etag      string
	taken     *service.HTTPMetrics // of the fast lane alone
}

func newLanes(t testing.TB) *lanes {
	t.Helper()
	backend := redistest.StartEmbedded(t)
	nodes := nodetest.New(t, backend.Addr())
	publisher, err := cache.NewPublisher(cache.PublisherConfig{Redis: nodes})
	if err != nil {
		t.Fatal(err)
	}
	l := &lanes{fast: make(chan net.Conn), std: make(chan net.Conn)}
	for id, content := range map[string]string{"a": "small", "b-1._~": "other", "large": strings.Repeat("large ", 20_000), "not\"unreserved": "x"} {
		encoded := post.Post{ID: id, Title: "title", Content: content}.Encode(time.Unix(1, 2))
		results, err := publisher.Write(t.Context(), cache.Write{Op: cache.Set, Key: id, Value: encoded.Body, Tag: encoded.Sum})
		if err != nil {
			t.Fatal(err)
		}
		l.token, l.etag = results[0].Token, string(post.AppendETag(nil, encoded.Sum))
	}
	if _, err := publisher.Write(t.Context(), cache.Write{Op: cache.Set, Key: "broken", Value: []byte("no post")}); err != nil {
		t.Fatal(err)
	}

	log := slog.New(slog.DiscardHandler)
	replica, err := cache.NewReplica(cache.ReplicaConfig{Redis: nodes, Logger: log})
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

	h := &handler{getter: &getter{replica: replica}, podID: "pod"}
	stdServer := func(m *service.HTTPMetrics) *service.HTTPServer {
		router := service.NewRouter(m)
		router.Handle(postPath, service.Read(h.serve(fromMemory)))
		return service.NewServer(h.signed(router), log)
	}
	l.taken = service.NewHTTPMetrics(service.NewRegistry("fast"))
	fast := newLane(h.getter, h.podID, l.taken)
	fast.server = fastlane.New(fastlane.Config{
		Path: postPath, Parameter: idParameter, Handler: fast.conn, Logger: log,
		Std: stdServer(service.NewHTTPMetrics(service.NewRegistry("behind"))),
	})
	h.hold = fast.server.Hold
	std := stdServer(service.NewHTTPMetrics(service.NewRegistry("std")))
	running.Go(func() { _ = fast.server.Serve(listener(l.fast)) })
	running.Go(func() { _ = std.Serve(listener(l.std)) })
	t.Cleanup(func() {
		close(l.fast)
		close(l.std)
		_ = fast.server.Close()
		_ = std.Close()
		stop()
		running.Wait()
		replica.Close()
	})
	return l
}

// The whole fast lane: parser, look-up, answer and metrics, over TCP.
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
			// A Get-buffer of ristretto's now and then is less than one allocation a request. What the
			// rest of the reader does meanwhile counts too, but comes and goes.
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

// listener accepts the connections that are sent to it.
type listener chan net.Conn

func (l listener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// script is a connection whose client sends pieces, each of which is one Read of the server, then
// closes its side and takes all answers.
type script struct {
	mu      sync.Mutex
	pieces  [][]byte
	answers bytes.Buffer
	broken  error // what Write returns; nil while the client takes answers
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
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func newScript(pieces ...[]byte) *script {
	return &script{pieces: pieces, closed: make(chan struct{})}
}

// wait returns the answers when the server has closed the connection.
func (s *script) wait(t testing.TB) []string {
	t.Helper()
	select {
	case <-s.closed:
	case <-time.After(20 * time.Second):
		t.Fatal("no end of the connection after 20 s")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return answersOf(s.answers.String())
}

// exchange returns what a server answers to the pieces.
func exchange(t testing.TB, server chan net.Conn, pieces [][]byte) []string {
	t.Helper()
	s := newScript(slices.Clone(pieces)...)
	server <- s
	return s.wait(t)
}

// answersOf takes a stream of answers apart: each is its status line, its header without Date in
// the order of the names, and its body. Where the next answer begins at once, or nothing follows, a
// Content-Length is that of a HEAD.
func answersOf(stream string) (answers []string) {
	for stream != "" {
		header, rest, ok := strings.Cut(stream, "\r\n\r\n")
		if !ok {
			return append(answers, "CUT "+stream)
		}
		lines := strings.Split(header, "\r\n")
		length := len(rest) // up to the end of the connection
		fields := lines[1:]
		fields = slices.DeleteFunc(fields, func(line string) bool { return strings.HasPrefix(line, "Date: ") })
		for _, line := range fields {
			if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				if _, err := fmt.Sscan(n, &length); err != nil {
					return append(answers, "MALFORMED "+stream)
				}
			}
		}
		if strings.HasPrefix(lines[0], "HTTP/1.1 304") || strings.HasPrefix(lines[0], "HTTP/1.1 100") || strings.HasPrefix(rest, "HTTP/1.1 ") {
			length = 0
		}
		slices.Sort(fields)
		length = min(length, len(rest))
		answers = append(answers, lines[0]+"\n"+strings.Join(fields, "\n")+"\n\n"+rest[:length])
		stream = rest[length:]
	}
	return answers
}

// cut splits a stream at places that seed decides.
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

func (l *lanes) compare(t testing.TB, stream []byte, seed uint64) (answers []string) {
	t.Helper()
	pieces := cut(stream, seed)
	fast, std := exchange(t, l.fast, pieces), exchange(t, l.std, pieces)
	if !slices.Equal(fast, std) {
		t.Fatalf("the lanes differ over %q in pieces of %d:\nwith the fast lane: %q\nnet/http alone: %q", stream, len(pieces), fast, std)
	}
	return fast
}

// cases are streams that have confused servers before, and the plain ones.
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
		// bodies, and who decides where they end
		request(get, "Content-Length: 0\r\n") + plain, request(get, "Content-Length: 5\r\n") + "hello" + plain, request(get, "Content-Length: 5\r\nContent-Length: 5\r\n") + "hello" + plain,
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
		request(get, "X-Min-Version: "+cache.Token{Epoch: l.token.Epoch + 1, Version: 99}.String()+"\r\n"), request(get, "x-min-version: "+cache.Token{Epoch: l.token.Epoch, Version: 1}.String()+"\r\nif-none-match: *\r\n"),
		request(get, "Range: bytes=0-1\r\n"), request(get, "If-Match: \"x\"\r\n"), request(get, "If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT\r\n"), request(get, "Accept-Encoding: gzip\r\n"), request(get, "Authorization: Basic x\r\nCookie: a=b; c\r\n"),
	}
	for _, id := range []string{"a", "b-1._~", "large"} {
		for _, list := range []string{l.etag, "W/" + l.etag, "\"x\", " + l.etag, ",, " + l.etag + " ,", l.etag + " x", "x, " + l.etag} {
			cases = append(cases, request("GET /post?id="+id+" HTTP/1.1", "If-None-Match: "+list+"\r\n")+plain)
		}
	}
	return cases
}

func TestLanesAnswerAlike(t *testing.T) {
	l := newLanes(t)
	for _, c := range l.cases() {
		for _, seed := range []uint64{1, 2, 3} {
			l.compare(t, []byte(c), seed)
		}
	}
	// A request that is cut off at every byte, after one that is whole.
	plain := "GET /post?id=a HTTP/1.1\r\nHost: example.org\r\nX: y\r\n\r\n"
	for n := range len(plain) {
		l.compare(t, []byte(plain+plain[:n]), uint64(n))
	}
}

// The comparison would be worth nothing if the fast lane took nothing.
func TestFastLaneTakesWhatItShould(t *testing.T) {
	l := newLanes(t)
	plain := "GET /post?id=a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nIf-None-Match: \"x\"\r\nX-Min-Version: " + l.token.String() + "\r\n\r\n"
	head := strings.Replace(plain, "GET", "HEAD", 1)
	unknown := strings.Replace(plain, "id=a", "id=unknown", 1)
	matching := strings.Replace(plain, `"x"`, "*", 1)
	malformed := strings.Replace(plain, l.token.String(), "x", 1)
	l.compare(t, []byte(plain+head+unknown+plain+matching+malformed), 1)
	for want, labels := range map[float64][]string{2: {"get", "200"}, 1: {"head", "200"}} {
		if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, labels[0], labels[1])); got != want {
			t.Errorf("%v requests of %v in the fast lane, want %v", got, labels, want)
		}
	}
	for _, code := range []string{"404", "304", "400"} {
		if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", code)); got != 1 {
			t.Errorf("%v requests with %s in the fast lane", got, code)
		}
	}
}

func FuzzLanes(f *testing.F) {
	l := newLanes(f)
	for i, c := range l.cases() {
		f.Add([]byte(c), uint64(i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		l.compare(t, stream, seed)
	})
}
