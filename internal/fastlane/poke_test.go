package fastlane

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// Poking an idle connection must not disturb later requests.
func TestIdleConnectionsContinue(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"socket":              func(c net.Conn) net.Conn { return c },
		"without SyscallConn": func(c net.Conn) net.Conn { return struct{ net.Conn }{c} },
	} {
		t.Run(name, func(t *testing.T) {
			f := startWrapped(t, wrap)
			c := dial(t, f)
			r := bufio.NewReader(c)
			for round := range 3 {
				send(t, c, get(fmt.Sprint(round)))
				expect(t, r, "fast", fmt.Sprint("post ", round))
				eventually.True(t, "poke", func() bool { return f.phase() == poked })
			}
			send(t, c, "POST /post?id=3 HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello")
			expect(t, r, "std", "post 3")
		})
	}
}

// latePoke is a connection on which the sweep pauses before it sets the deadline of a poke, as if its thread had
// been preempted.
type latePoke struct {
	*net.TCPConn
	t         testing.TB
	armed     atomic.Bool   // set by the test; earlier pokes are neither paused nor counted
	pokes     atomic.Int64  // number of pokes
	decided   chan struct{} // closed when the sweep is about to set the deadline of the first poke
	resume    chan struct{} // closed by the test to continue the sweep
	set       chan struct{} // closed when the deadline of the first poke has been set
	clearOnce sync.Once
	cleared   chan struct{} // closed when the deadline of the first poke is about to be removed
	stdOnce   sync.Once
	stdSet    chan struct{} // closed when net/http sets a deadline
}

func (c *latePoke) SetReadDeadline(at time.Time) error {
	switch {
	case at.IsZero() && c.pokes.Load() > 0:
		c.clearOnce.Do(func() { close(c.cleared) })
	case at.After(time.Now()):
		c.stdOnce.Do(func() { close(c.stdSet) })
	case at.Equal(expired) && c.armed.Load() && c.pokes.Add(1) == 1:
		close(c.decided)
		select {
		case <-c.resume:
		case <-c.t.Context().Done():
		}
		defer close(c.set)
	}
	return c.TCPConn.SetReadDeadline(at)
}

// startLate starts a server with one connection and returns when the sweep pauses in the first poke.
func startLate(t testing.TB) (late *latePoke, server *conn, client net.Conn, r *bufio.Reader) {
	t.Helper()
	made := make(chan *latePoke, 1)
	f := startWrapped(t, func(c net.Conn) net.Conn {
		late := &latePoke{
			TCPConn: c.(*net.TCPConn), t: t,
			decided: make(chan struct{}), resume: make(chan struct{}), set: make(chan struct{}),
			cleared: make(chan struct{}), stdSet: make(chan struct{}),
		}
		made <- late
		return late
	})
	client = dial(t, f)
	late = <-made
	eventually.True(t, "connection", func() bool {
		f.each(func(c *conn) { server = c })
		return server != nil
	})
	late.armed.Store(true)
	r = bufio.NewReader(client)
	send(t, client, get("1"))
	expect(t, r, "fast", "post 1")
	<-late.decided
	return late, server, client, r
}

// A late poke must not interrupt a read of net/http, which would treat it as a timeout.
func TestLatePokeDoesNotReachNetHTTP(t *testing.T) {
	withAndWithoutLane(t, func(t *testing.T, start starter, fast string) {
		late, server, client, r := startLate(t)
		whole := "POST /post?id=3 HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\nhello"
		part := len(whole) - 2 // the header and a part of the body
		send(t, client, whole[:part])
		eventually.True(t, "hand-over", func() bool { return server.phase() == left })
		select {
		case <-late.stdSet: // must not happen: the poke below would interrupt a read of net/http
		case <-time.After(200 * time.Millisecond):
		}
		close(late.resume)
		<-late.set
		send(t, client, whole[part:])
		expect(t, r, "std", "post 3")
	})
}

// If a late poke interrupts the reading of a header, the connection is poked again once it is idle. Otherwise
// the end of the stream could go unnoticed.
func TestLatePokeIsRepeated(t *testing.T) {
	late, server, client, r := startLate(t)
	request := get("2")
	send(t, client, request[:12])
	eventually.True(t, "half a header", func() bool { return server.phase() == reading })
	close(late.resume)
	<-late.cleared
	send(t, client, request[12:])
	expect(t, r, "fast", "post 2")
	eventually.True(t, "second poke", func() bool { return late.pokes.Load() == 2 })
}
