package fastlane

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

const pinnedBody = 8 << 20 // bytes; exceeds both socket buffers

// replaced answers each request with a new body, as for a post that is replaced all the time, except that the
// body of "same" is always the same.
type replaced struct{ same string }

func (h *replaced) body(query string) string {
	if query == "id=same" {
		return h.same
	}
	return strings.Repeat("x", pinnedBody)
}

func (h *replaced) Serve(out *Output, q *Request) {
	out.SetBuffer(append(out.Buffer(), "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(pinnedBody)+"\r\n\r\n"...))
	out.Body(h.body(string(q.Query)))
}

func (h *replaced) Flushed() {}

// Clients that do not read pin at most MaxPinned bytes; the slowest of them are cut. A body that several clients
// receive counts once.
func TestSlowClientsPinBoundedMemory(t *testing.T) {
	const clients, most = 6, 2
	for _, tt := range []struct {
		name, request string
		left          int
	}{
		{"fast lane", get("1"), most},
		{"fast lane, one body", get("same"), clients},
		{"net/http", "GET /other?id=1 HTTP/1.1\r\n" + hostLine, most},
		{"net/http, one body", "GET /other?id=same HTTP/1.1\r\n" + hostLine, clients},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &replaced{same: strings.Repeat("y", pinnedBody)}
			server := make(chan *Server, 1)
			f := start(t, func(c *Config) {
				c.MaxPinned = most*pinnedBody + 1
				c.Handler = func() Handler { return h }
				c.Std.WriteTimeout = time.Hour
				c.Std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body := h.body(r.URL.RawQuery)
					s := <-server
					server <- s
					defer s.Hold(w, body)()
					_, _ = fmt.Fprint(w, body)
				})
			})
			server <- f.Server
			held := func() (answers int, bytes int64) {
				f.pins.mu.Lock()
				defer f.pins.mu.Unlock()
				return f.pins.held.Len(), f.pins.bytes
			}
			for n := range clients {
				c := dial(t, f)
				_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
				before := f.pinned()
				send(t, c, tt.request)
				eventually.True(t, fmt.Sprint("stalled answer ", n), func() bool { return f.pinned() != before })
			}
			f.waitTicks(t, 2*slowTicks)
			eventually.Nil(t, func() error {
				answers, bytes := held()
				if conns := f.connCount(); answers != tt.left || bytes > f.pins.most || conns != tt.left {
					return fmt.Errorf("%d answers on %d connections pin %d bytes; want %d answers and at most %d bytes", answers, conns, bytes, tt.left, f.pins.most)
				}
				return nil
			})
		})
	}
}

// pinned returns the answer whose write began last.
func (f *fixture) pinned() *pin {
	f.pins.mu.Lock()
	defer f.pins.mu.Unlock()
	if last := f.pins.held.Back(); last != nil {
		return last.Value.(*pin)
	}
	return nil
}
