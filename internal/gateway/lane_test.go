package gateway

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestPlainReadsAllocateNothing counts the allocations of the whole process, so client and reader must not allocate either.
func TestPlainReadsAllocateNothing(t *testing.T) {
	const request = "GET /post?id=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\nAccept: */*\r\n\r\n"
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: today\r\nContent-Length: 4\r\n\r\ntrue"
	r := newFaulty(t, func(conn net.Conn) {
		buf, bytes := make([]byte, 4096), []byte(answer)
		for {
			if _, err := conn.Write(bytes); err != nil {
				return
			}
			if _, err := conn.Read(buf); err != nil { // a request, which arrives in one piece
				return
			}
		}
	})
	g := start(t, Config{Readers: []string{r.addr}, CheckInterval: time.Minute})
	g.awaitReady(t, 1)
	c := g.connect(t)
	send, buf := []byte(request), make([]byte, 4096)
	c.send(t, request)
	size, err := c.Conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		if _, err := c.Write(send); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.Conn, buf[:size]); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		read()
	}
	if got := testing.AllocsPerRun(2000, read); got != 0 {
		t.Errorf("%v allocations per read, want 0", got)
	}
}
