package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// TestWriterMemory sends the requests that need the most memory to a writer with the memory limit of the
// Compose file. The metric of the memory obtained from the system never falls, so it shows the peak at the
// end.
func TestWriterMemory(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	for name, send := range map[string]func(t *testing.T, addr string){
		"incomplete bodies": func(t *testing.T, addr string) { // bodies without their last byte
			flood(t, 100, func() string {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					return err.Error()
				}
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = fmt.Fprintf(conn, "POST /create HTTP/1.1\r\nHost: writer\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", post.MaxBody)
				_, _ = io.WriteString(conn, strings.Repeat(" ", post.MaxBody-1))
				return "sent" // or already refused
			})
		},
		"concurrent posts": func(t *testing.T, addr string) {
			body := fmt.Sprintf(`{"id":"a","title":"t","content":"%s"}`, strings.Repeat("x", post.MaxContent))
			flood(t, 200, func() string { return status(addr, "/create", body) })
		},
		"imports of the largest lines": func(t *testing.T, addr string) {
			line := fmt.Sprintf(`{"id":"a","title":"t","content":"%s"}`+"\n", strings.Repeat(`\u0001`, post.MaxContent))
			flood(t, 6, func() string { return status(addr, "/import", strings.Repeat(line, 2)) })
		},
		"refused lines": func(t *testing.T, addr string) {
			body := strings.Repeat("1\n", 60_000)
			flood(t, 4, func() string { return status(addr, "/import", body) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := startProcess(t, "writer", "REDIS_ADDR="+server.Addr(), "GOMEMLIMIT=450MiB", "LOG_LEVEL=error")
			send(t, w.addr)
			var peak float64
			eventually.Nil(t, func() error {
				res, err := get(w.addr, "/metrics")
				if err != nil {
					return err
				}
				for text := range bytes.Lines(res.body) {
					if _, err := fmt.Sscanf(string(text), "go_memstats_sys_bytes %g", &peak); err == nil {
						return nil
					}
				}
				return fmt.Errorf("no go_memstats_sys_bytes in %.100s", res.body)
			})
			t.Logf("peak memory: %.0f MiB", peak/(1<<20))
			if peak > 400<<20 {
				t.Errorf("the writer used %.0f MiB, want at most 400", peak/(1<<20))
			}
		})
	}
}

// flood calls request n times concurrently. Every request must be either executed or certainly refused.
func flood(t *testing.T, n int, request func() string) {
	t.Helper()
	var mu sync.Mutex
	outcomes := map[string]int{}
	var sending sync.WaitGroup
	for range n {
		sending.Go(func() {
			outcome := request()
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
		})
	}
	sending.Wait()
	for outcome, n := range outcomes {
		switch outcome {
		case "sent", "200 OK", "201 Created", "503 Service Unavailable":
		default:
			t.Errorf("%d of %v: %s", n, outcomes, outcome)
		}
	}
	t.Log(outcomes)
}

// status posts body like a client that reads nothing before it has sent everything.
func status(addr, path, body string) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: writer\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, len(body))
	if _, err := io.WriteString(conn, body); err != nil {
		return "the body was not accepted"
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "no response"
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return "truncated response"
	}
	if len(answer) > 1<<20 {
		return fmt.Sprintf("a response of %d bytes", len(answer))
	}
	return res.Status
}
