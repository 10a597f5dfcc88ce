package gateway

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"time"
)

// parseHead returns the first line and the header of a message.
func parseHead(t *testing.T, message string) (string, http.Header) {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(message)))
	first, err := r.ReadLine()
	if err != nil {
		t.Fatalf("%v: %q", err, message)
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		t.Fatalf("%v: %q", err, message)
	}
	return first, http.Header(header)
}

// exchangeBytes sends a request to the gateway on a new connection and returns the raw answer.
func (g *gateway) exchangeBytes(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// TestHeadersToReader sends header fields with which a client could pose as a proxy or affect the connection between
// gateway and reader. It compares all fields that the reader receives.
func TestHeadersToReader(t *testing.T) {
	t.Parallel()
	r := newFaulty(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	_, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		t.Fatal(err)
	}
	// always has the fields that the gateway sets, whatever the client sends.
	always := http.Header{
		"Host": {"reader"}, "X-Request-Id": {"id-1"}, "X-Real-Ip": {"127.0.0.1"}, "X-Forwarded-For": {"127.0.0.1"},
		"X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"posts.example"}, "X-Forwarded-Port": {port},
	}
	tests := []struct {
		name   string
		sent   []string
		passed http.Header // fields that the reader receives besides always
	}{
		{name: "nothing", sent: []string{"Connection: close"}},
		{name: "a read", sent: []string{
			"Connection: close", "User-Agent: me", "Accept: */*", "Accept-Encoding: gzip", "If-None-Match: \"a\"",
			"X-Min-Version: 1-2", "Authorization: Basic x", "Cookie: a=b", "Via: 1.1 client", "X-Kept: 1", "X-Kept: 2",
		}, passed: http.Header{
			"User-Agent": {"me"}, "Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "If-None-Match": {"\"a\""},
			"X-Min-Version": {"1-2"}, "Authorization": {"Basic x"}, "Cookie": {"a=b"}, "Via": {"1.1 client"}, "X-Kept": {"1", "2"},
		}},
		{name: "fields of a proxy", sent: []string{
			"Connection: close", "X-Real-IP: 6.6.6.6", "x-real-ip: 6.6.6.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil",
			"X-Forwarded-Port: 443", "X-Forwarded-Server: evil", "X-Forwarded-Prefix: /evil", "X-Forwarded-Ssl: on",
			"X-FORWARDED-BY: evil", "Forwarded: for=6.6.6.6;proto=https", "Forwarded: by=evil",
		}},
		{name: "a chain of proxies", sent: []string{
			"Connection: close", "X-Forwarded-For: 6.6.6.6, 7.7.7.7", "X-Forwarded-For: 8.8.8.8",
		}, passed: http.Header{"X-Forwarded-For": {"6.6.6.6, 7.7.7.7, 8.8.8.8, 127.0.0.1"}}},
		{name: "hop by hop", sent: []string{
			"Connection: close, X-Named", "Connection: x-named-too ,, Keep-Alive", "X-Named: 1", "X-Named-Too: 1", "Keep-Alive: 300",
			"TE: trailers, deflate;q=0.5", "Trailer: X-Sum", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic x",
			"Proxy-Authenticate: Basic", "Proxy-Anything: 1", "Proxy: http://evil", "Expect: 100-continue",
		}},
		{name: "another protocol", sent: []string{
			"Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c, websocket", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
		}},
		{name: "removal of fields that the gateway sets", sent: []string{
			"Connection: close, Host, X-Request-Id, X-Real-IP, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port",
		}},
	}
	for i, test := range append(tests, tests...) {
		path := []string{"/post?id=1", "/post-redis?id=1"}[i/len(tests)] // the first is served by the lane, the second by net/http
		t.Run(test.name+path, func(t *testing.T) {
			lines := append([]string{"GET " + path + " HTTP/1.1", "Host: posts.example", "X-Request-Id: id-1"}, test.sent...)
			answer := g.exchangeBytes(t, strings.Join(lines, "\r\n")+"\r\n\r\n")
			if status, _ := parseHead(t, answer); status != "HTTP/1.1 200 OK" {
				t.Fatalf("answer %q", answer)
			}
			request, got := parseHead(t, *r.head.Load())
			if request != "GET "+path+" HTTP/1.1" {
				t.Errorf("the reader got %q", request)
			}
			want := maps.Clone(always)
			maps.Copy(want, test.passed)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the reader got\n%v\nwant\n%v", got, want)
			}
		})
	}
}

// TestNoHost: an HTTP/1.0 request may lack a Host, but the gateway sends HTTP/1.1 to the reader, which requires one.
func TestNoHost(t *testing.T) {
	t.Parallel()
	r := newReader(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto+" "+r.Host) })
	g := start(t, Config{Readers: []string{r.addr}})
	g.awaitReady(t, 1)
	answer := g.exchangeBytes(t, "GET /post?id=1 HTTP/1.0\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(answer, "HTTP/1.1 reader") {
		t.Errorf("answer %q", answer)
	}
}

// TestHeadersToClient compares all header fields that a client receives.
func TestHeadersToClient(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nDate: today\r\nContent-Type: text/plain\r\nETag: \"a\"\r\nX-Kept: 1\r\nX-Kept: 2\r\n"
	for name, answer := range map[string]string{
		"hop by hop": head + "Connection: X-Named\r\nConnection: keep-alive ,, x-named-too\r\nX-Named: 1\r\nX-Named-Too: 1\r\n" +
			"Keep-Alive: timeout=1\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\n" +
			"Proxy-Authentication-Info: x\r\nX-Request-Id: the reader's\r\nContent-Length: 2\r\n\r\nok",
		"fields of a proxy": head + "X-Real-IP: 1\r\nX-Forwarded-For: 1\r\nX-Forwarded-Any: 1\r\nForwarded: for=1\r\nContent-Length: 2\r\n\r\nok",
		"a trailer": head + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
			"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Unannounced: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, func(conn net.Conn) { io.WriteString(conn, answer) })
			g := start(t, Config{Readers: []string{r.addr}})
			g.awaitReady(t, 1)
			for _, path := range []string{"/post?id=1", "/post-redis?id=1"} {
				through := g.exchangeBytes(t, "GET "+path+" HTTP/1.1\r\nHost: posts.example\r\nX-Request-Id: id-1\r\nConnection: close\r\n\r\n")
				_, got := parseHead(t, through)
				got.Del("Content-Length") // the gateway frames the body itself
				got.Del("Transfer-Encoding")
				want := http.Header{
					"Date": {"today"}, "Content-Type": {"text/plain"}, "Etag": {"\"a\""}, "X-Kept": {"1", "2"},
					"X-Request-Id": {"id-1"}, "Connection": {"close"},
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: the client got\n%v\nwant\n%v", path, got, want)
				}
				res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(through)), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err != nil || string(body) != "ok" || len(res.Trailer) != 0 {
					t.Errorf("%s: body %q (%v), trailer %v, want ok and none", path, body, err, res.Trailer)
				}
			}
		})
	}
}
