package gateway

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mixupTimeout is the gateway's timeout in TestAnswersReachTheirClients. Late answers take twice as long.
const mixupTimeout = 50 * time.Millisecond

// answerOddly answers the requests of a connection, each in a way that leaves the connection in another state. Every
// answer names the id of its request.
func answerOddly(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.URL.Path == "/ready" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		id := req.URL.Query().Get("id")
		head := func(status, id string) string { return "HTTP/1.1 " + status + "\r\nX-Id: " + id + "\r\n" }
		whole := fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head("200 OK", id), len(id))
		body := id
		if req.Method == http.MethodHead {
			body = ""
		}
		answer, last := whole+body, false
		switch rand.IntN(12) {
		case 0:
			answer = head("304 Not Modified", id) + "Content-Length: 100\r\n\r\n"
		case 1:
			answer = head("204 No Content", id) + "\r\n"
		case 2:
			answer = "HTTP/1.1 103 Early Hints\r\nX-Id: early\r\n\r\n" + whole + body
		case 3: // trailing bytes
			answer += head("200 OK", "trailing") + "Content-Length: 2\r\n\r\nno"
		case 4: // a body for HEAD
			answer = whole + id
		case 5:
			answer = head("200 OK", id) + "Transfer-Encoding: chunked\r\n\r\n"
			if body != "" {
				answer += fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Trailer: x\r\n\r\n", len(body), body)
			}
		case 6: // more than one read
			answer = fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head("200 OK", id), 5000*len(id)) + strings.Repeat(body, 5000)
		case 7: // too late
			<-time.After(2 * mixupTimeout)
		case 8: // half a header in time
			io.WriteString(conn, answer[:20])
			<-time.After(2 * mixupTimeout)
			answer = answer[20:]
		case 9:
			answer, last = head("200 OK", id)+"Connection: close\r\n\r\n"+body, true
		case 10: // breaks off
			answer, last = fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head("200 OK", id), 2*len(id))+body, true
		}
		if _, err := io.WriteString(conn, answer); err != nil || last {
			return
		}
	}
}

// TestAnswersReachTheirClients: no client gets the answer to another request, whatever state readers and clients leave
// their connections in.
func TestAnswersReachTheirClients(t *testing.T) {
	t.Parallel()
	var addrs []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		addrs = append(addrs, ln.Addr().String())
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go answerOddly(conn)
			}
		}()
	}
	g := start(t, Config{Readers: addrs, Timeout: mixupTimeout})
	g.awaitReady(t, len(addrs))
	var requests, answered atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 10 {
				answered.Add(readOwn(t, g.addr, &requests))
			}
		})
	}
	clients.Wait()
	if n := answered.Load(); n < 500 {
		t.Errorf("%d answers of readers arrived, too few to prove anything", n)
	}
}

// readOwn sends some requests on one connection, two at a time, and checks the answers. Now and then it leaves without
// reading an answer. It returns the number of answers of readers.
func readOwn(t *testing.T, addr string, requests *atomic.Int64) (answered int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(conn)
	for range 10 {
		method := []string{http.MethodGet, http.MethodGet, http.MethodHead}[rand.IntN(3)]
		path := []string{"/post", "/post-redis"}[rand.IntN(2)] // the first is served by the lane, the second by net/http
		var ids [2]string
		for i := range ids {
			ids[i] = fmt.Sprint("id-", requests.Add(1))
			fmt.Fprintf(conn, "%s %s?id=%s HTTP/1.1\r\nHost: x\r\n\r\n", method, path, ids[i])
		}
		if rand.IntN(10) == 0 {
			return answered
		}
		for _, id := range ids {
			res, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				return answered // the answer before this one broke off
			}
			body, err := io.ReadAll(res.Body)
			if res.StatusCode >= 500 {
				continue
			}
			if got := res.Header.Get("X-Id"); got != id || strings.ReplaceAll(string(body), id, "") != "" && err == nil {
				t.Errorf("%s %s?id=%s: %s with the id %q and the body %.40q", method, path, id, res.Status, got, body)
			}
			answered++
			if err != nil {
				return answered
			}
		}
	}
	return answered
}
