package writer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// socket is a client that uses its connection in ways that net/http's client does not.
type socket struct{ *net.TCPConn }

// dial connects with a small receive buffer and a deadline of one minute.
func (w *instance) dial(t testing.TB) socket {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := socket{conn.(*net.TCPConn)}
	if err := s.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return s
}

// begin sends the header of a request. length is the length of the body; a negative length means chunked.
func (s socket) begin(t testing.TB, request string, length int, header ...string) {
	t.Helper()
	framing := fmt.Sprint("Content-Length: ", length)
	if length < 0 {
		framing = "Transfer-Encoding: chunked"
	}
	header = append([]string{request + " HTTP/1.1", "Host: writer", "Content-Type: application/json", framing}, header...)
	s.write(t, strings.Join(header, "\r\n")+"\r\n\r\n")
}

func (s socket) write(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		t.Fatalf("send the request: %v", err)
	}
}

// chunk encodes text as a chunk of a body.
func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// answer reads a complete answer.
func (s socket) answer(t testing.TB) response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the body of the answer: %v", err)
	}
	return response{res.StatusCode, res.Header, body}
}
