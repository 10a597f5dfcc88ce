package fastlane

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// relay is a handler that uses the features for proxies.
type relay struct{}

func (relay) Serve(out *Output, q *Request) {
	if string(q.Query) == "broken" {
		out.SetBuffer(append(out.Buffer(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"...))
		out.Flush()
		out.SetBuffer(append(out.Buffer(), "lost"...))
		out.Abandon()
		return
	}
	content := fmt.Sprint(out.RemoteAddr(), " ", out.LocalAddr(), "\n", string(q.Fields))
	out.SetBuffer(fmt.Appendf(out.Buffer(), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(content), content))
}

func (relay) Flushed() {}

func withRelay(c *Config) { c.Handler = func() Handler { return relay{} } }

func TestFieldsAndAddressesOfARequest(t *testing.T) {
	f := start(t, withRelay)
	c := dial(t, f)
	r := bufio.NewReader(c)
	for _, fields := range []string{"Host: a\r\n", "Host: a\r\nx-odd:  spaced \r\nX-Empty:\r\n", ""} {
		version := "1.1"
		if fields == "" {
			version = "1.0"
		}
		send(t, c, "GET /post?id=1 HTTP/"+version+"\r\n"+fields+"\r\n")
		if _, got := answer(t, r); got != fmt.Sprint(c.LocalAddr(), " ", f.addr, "\n", fields) {
			t.Errorf("the handler received %q for the fields %q", got, fields)
		}
	}
}

// If a handler abandons an answer, the connection is closed and later requests on it are not answered.
func TestAbandonedAnswer(t *testing.T) {
	f := start(t, withRelay)
	c := dial(t, f)
	send(t, c, "GET /post?broken HTTP/1.1\r\n"+hostLine+get("1"))
	all, _ := io.ReadAll(c) // a reset is allowed, because the client has sent more than was read
	if !strings.HasSuffix(string(all), "\r\n\r\nhalf") {
		t.Errorf("the client received %q, want an answer that ends in half", all)
	}
	eventually.True(t, "end of the connection", func() bool { return f.connCount() == 0 })
}

func TestStatesOfConnections(t *testing.T) {
	f := start(t)
	release := sync.OnceFunc(func() { close(f.release) })
	defer release()
	await := func(want States) {
		t.Helper()
		eventually.True(t, fmt.Sprintf("%+v", want), func() bool { return f.States() == want })
	}
	var conns []net.Conn
	for range 4 {
		conns = append(conns, dial(t, f))
	}
	await(States{Accepted: 4, Reading: 4})
	send(t, conns[0], get("wait"))
	send(t, conns[1], "GET /wait HTTP/1.1\r\n"+hostLine)
	send(t, conns[2], get("1"))
	if _, err := http.ReadResponse(bufio.NewReader(conns[2]), nil); err != nil {
		t.Fatal(err)
	}
	send(t, conns[3], get("1")[:9])
	await(States{Accepted: 4, Reading: 1, Writing: 2, Waiting: 1})
	f.waitTicks(t, 4) // the sweep pokes idle connections
	await(States{Accepted: 4, Reading: 1, Writing: 2, Waiting: 1})
	release()
	await(States{Accepted: 4, Reading: 1, Waiting: 3})
	_ = conns[2].Close()
	await(States{Accepted: 4, Reading: 1, Waiting: 2})
}
