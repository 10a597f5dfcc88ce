package wire

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch r.URL.Path {
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	case "/same":
		w.WriteHeader(http.StatusNotModified)
	case "/bye":
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "bye")
	case "/long":
		fmt.Fprint(w, strings.Repeat("long ", 20_000)) // chunked
	default:
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("X-Test"), body)
	}
}

func TestConn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	defer server.Close()
	c, err := Dial(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := func(a Answer, err error, status int, body string) {
		t.Helper()
		if err != nil || a.Status != status || string(a.Body) != body {
			t.Fatalf("got %d %.100q (%v), want %d %.100q", a.Status, a.Body, err, status, body)
		}
	}
	a, err := c.Get("/a?b=c", "X-Test: 7\r\n")
	check(a, err, 200, "GET /a?b=c 7 ")
	a, err = c.Get("/same", "")
	check(a, err, 304, "")
	a, err = c.Post("/p", "X-Test: 8\r\n", []byte(`{}`))
	check(a, err, 200, "POST /p 8 {}")
	a, err = c.Delete("/none", "")
	check(a, err, 204, "")
	a, err = c.Get("/long", "")
	check(a, err, 200, strings.Repeat("long ", 20_000))

	received, sent := c.Bytes()
	a, err = c.Get("/a", "")
	check(a, err, 200, "GET /a  ")
	moreReceived, moreSent := c.Bytes()
	if want := int64(len("GET /a HTTP/1.1\r\nHost: \r\n\r\n") + len(server.Listener.Addr().String())); moreSent-sent != want {
		t.Errorf("%d bytes sent, want %d", moreSent-sent, want)
	}
	if n := moreReceived - received; n < 50 || n > 500 {
		t.Errorf("%d bytes received for a short answer with headers", n)
	}
}

// A pool does not reuse a connection that the server closes, and fails when the server is gone.
func TestPool(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	defer server.Close()
	pool := &Pool{Addr: server.Listener.Addr().String()}
	defer pool.Close()
	client := &http.Client{Transport: pool}
	for _, c := range []struct {
		path string
		idle int
	}{{"/a", 1}, {"/a", 1}, {"/bye", 0}, {"/a", 1}} {
		res, err := client.Get(server.URL + c.path)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s: %v %v", c.path, res, err)
		}
		if len(pool.idle) != c.idle {
			t.Errorf("after %s there are %d idle connections, want %d", c.path, len(pool.idle), c.idle)
		}
	}
	if _, err := client.Post(server.URL, "text/plain", strings.NewReader("x")); err == nil {
		t.Error("a POST was sent as a GET")
	}
	server.CloseClientConnections()
	if _, err := client.Get(server.URL + "/a"); err == nil {
		t.Error("no error over a connection that was closed")
	}
}
