package writer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/proctest"
	"heavy-read-api/internal/test/redistest"
)

// exchange sends request on a new connection. It returns the first answer and whether the connection closes after it.
func (w *instance) exchange(t *testing.T, method, request string) (res response, last bool) {
	t.Helper()
	s := w.dial(t)
	defer s.Close()
	go func() { _, _ = io.WriteString(s, request) }()
	r := bufio.NewReader(s)
	answer, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("read the body of the answer: %v", err)
	}
	if answer.Close {
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("after the last answer: %.100q, %v; want the end of the connection", rest, err)
		}
	}
	return response{answer.StatusCode, answer.Header, body}, answer.Close
}

// After a request with ambiguous framing the connection is closed, so that no part of its body is parsed as a second
// request.
func TestAmbiguousFraming(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("kept", "t")), 201, "kept")
	const (
		head   = "POST /create HTTP/1.1\r\nHost: writer\r\nContent-Type: application/json\r\n"
		head10 = "POST /create HTTP/1.0\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
	)
	good := strings.TrimSuffix(line("good", "t"), "\n")
	chunked := chunk(good) + "0\r\n\r\n"
	for name, tt := range map[string]struct {
		request string
		status  int
	}{
		"length, then encoding":          {head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n", len(chunked)) + chunked, 201},
		"encoding, then length":          {head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunked, 201},
		"length beyond the body":         {head + "Content-Length: 1000\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 201},
		"other case":                     {head + "content-length: 4\r\ntransfer-ENCODING: Chunked\r\n\r\n" + chunked, 201},
		"HTTP/1.0 with an encoding":      {head10 + "Transfer-Encoding: chunked\r\n\r\n" + chunked, 400},
		"HTTP/1.0 with both":             {head10 + fmt.Sprintf("Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n", len(good)) + good, 201},
		"two equal lengths":              {head + fmt.Sprintf("Content-Length: %d\r\nContent-Length: %[1]d\r\n\r\n", len(good)) + good, 201},
		"two lengths":                    {head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\n" + good, 400},
		"a list of lengths":              {head + "Content-Length: 4, 5\r\n\r\n" + good, 400},
		"a signed length":                {head + "Content-Length: +4\r\n\r\n" + good, 400},
		"a negative length":              {head + "Content-Length: -1\r\n\r\n" + good, 400},
		"a length beyond int64":          {head + "Content-Length: 99999999999999999999\r\n\r\n" + good, 400},
		"two encodings":                  {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, 501},
		"an unknown encoding":            {head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked, 501},
		"an encoding that looks alike":   {head + "Transfer-Encoding: \x0bchunked\r\n\r\n" + chunked, 400},
		"a space before the colon":       {head + "Transfer-Encoding : chunked\r\n\r\n" + chunked, 400},
		"a folded length":                {head + "X: y\r\n Content-Length: 1000\r\nContent-Length: 4\r\n\r\nnull", 400},
		"a folded encoding":              {head + fmt.Sprintf("Content-Length: %d\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", len(good)) + good, 201},
		"a chunk longer than its size":   {head + "Transfer-Encoding: chunked\r\n\r\n4\r\nnull" + chunked, 400},
		"a chunk size that is no number": {head + "Transfer-Encoding: chunked\r\n\r\n+5\r\n" + chunked, 400},
	} {
		t.Run(name, func(t *testing.T) {
			res, last := w.exchange(t, "POST", tt.request+"DELETE /post?id=kept HTTP/1.1\r\nHost: writer\r\n\r\n")
			if res.status != tt.status && !(tt.status == 201 && res.status == 200) || !last {
				t.Errorf("%d %s, last: %v; want %d", res.status, res.body, last, tt.status)
			}
			if tt.status >= 400 {
				wantProblem(t, res, tt.status, "")
			}
			if stored(t, db, "kept") == "" {
				t.Error("the request in the body was served")
			}
		})
	}
}

// Requests that are refused before they reach a handler are answered with problem documents too.
func TestRefusedBeforeTheHandler(t *testing.T) {
	w := start(t, redistest.StartEmbedded(t).Addr())
	long := strings.Repeat("x", 20<<10)
	for name, tt := range map[string]struct {
		request string
		status  int
		field   string
	}{
		"Host with a bracket":       {" /ready HTTP/1.1\r\nHost: ]\r\n\r\n", 400, "Host"},
		"Host with an open bracket": {" /ready HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "Host"},
		"Host with two ports":       {" /ready HTTP/1.1\r\nHost: a:80:90\r\n\r\n", 400, "Host"},
		"Host with a path":          {" /ready HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, ""},
		"no Host":                   {" /ready HTTP/1.1\r\n\r\n", 400, ""},
		"two Hosts":                 {" /ready HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, ""},
		"a long URL":                {" /post?id=" + long + " HTTP/1.1\r\nHost: a\r\n\r\n", 414, ""},
		"a long header":             {" /ready HTTP/1.1\r\nHost: a\r\nX: " + long + "\r\n\r\n", 431, ""},
		"a control character":       {" /ready HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400, ""},
		"an unknown version":        {" /ready HTTP/3.0\r\nHost: a\r\n\r\n", 505, ""},
		"an unknown expectation":    {" /ready HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, _ := w.exchange(t, "GET", "GET"+tt.request)
			wantProblem(t, res, tt.status, tt.field)
			if res, _ := w.exchange(t, "HEAD", "HEAD"+tt.request); res.status != tt.status || len(res.body) > 0 {
				t.Errorf("HEAD: %d %q, want %d without a body", res.status, res.body, tt.status)
			}
		})
	}
}

// Environment variables for the child process of TestHalfOpenConnections.
const (
	childRedis   = "WRITER_TEST_REDIS"   // address of Redis; makes the test binary a writer
	childMetrics = "WRITER_TEST_METRICS" // if set, /ready has a port of its own
)

// Clients that send half a header occupy all connections that the process may have. Other clients are refused at once,
// probes are answered, and writes succeed again after the half-sent headers have timed out.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	if addr := os.Getenv(childRedis); addr != "" {
		listening := make(chan string, 1)
		w := start(t, addr, func(c *Config) {
			if os.Getenv(childMetrics) != "" {
				c.MetricsListening = func(addr string) { listening <- addr }
			}
		})
		front := strings.TrimPrefix(w.URL, "http://")
		if os.Getenv(childMetrics) == "" {
			listening <- front
		}
		fmt.Println("listening", front, <-listening)
		_, _ = io.Copy(io.Discard, os.Stdin) // blocks until the parent closes it
		return
	}
	t.Run("one port", func(t *testing.T) { testHalfOpen(t, "") })
	t.Run("a port for metrics", func(t *testing.T) { testHalfOpen(t, "yes") })
}

func testHalfOpen(t *testing.T, metrics string) {
	const files, clients = 1200, 1500
	var front, back string
	env := []string{childRedis + "=" + redistest.StartEmbedded(t).Addr(), childMetrics + "=" + metrics}
	proctest.StartSelf(t, fmt.Sprint("ulimit -n ", files), env, &front, &back)
	ready := func() error { return roundTrip(back, "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n", 200) }
	eventually.Nil(t, ready)

	for range clients {
		c, err := net.Dial("tcp", front)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, "POST /create HTTP/1.1\r\nHost")
	}
	body := line("a", "t")
	write := fmt.Sprintf("POST /create HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := roundTrip(front, write, 503); err != nil {
		t.Error("a write while all connections are taken: ", err)
	}
	if err := ready(); err != nil {
		t.Error(err)
	}
	eventually.Nil(t, func() error { return roundTrip(front, write, 201) })
}

// roundTrip sends a request on a new connection and returns an error unless the answer has the status.
func roundTrip(addr, request string, status int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var p httpkit.Problem
	if res.StatusCode == 503 && json.NewDecoder(res.Body).Decode(&p) != nil {
		return fmt.Errorf("%s without a problem document", res.Status)
	}
	if res.StatusCode != status {
		return fmt.Errorf("%.20q: %s, want %d", request, res.Status, status)
	}
	return nil
}
