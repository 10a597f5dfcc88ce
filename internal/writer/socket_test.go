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

// Clients that use their connection in ways that Go's does not.

// socket is a client's connection.
type socket struct{ *net.TCPConn }

// dial connects. The kernel buffers little of the answer for it, and every use ends within a minute.
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

// begin sends the head of a request. length is that of the body, chunked below 0.
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
		t.Fatalf("the writer does not take what is sent: %v", err)
	}
}

// chunk is text as a chunk of a body.
func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// answer reads the answer to its end.
func (s socket) answer(t testing.TB) response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		t.Fatalf("there is no answer: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("the answer breaks off: %v", err)
	}
	return response{res.StatusCode, res.Header, body}
}
