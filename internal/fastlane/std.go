package fastlane

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/rawio"
)

// stdConn is the view of a connection that net/http has: it carries one request. Until that request has been
// answered, Read returns no byte after it, so that none remains in net/http's buffer. Then Read returns EOF, and
// the Close that follows returns the connection to the fast lane. If the connection stays with net/http (Server.stays),
// Read waits for the next request with the code of the fast lane, which also answers requests for the fast lane.
type stdConn struct {
	*conn
	flow   net.Conn // the same connection, for bodies and answers
	unread []byte   // bytes received and not yet passed to net/http; a part of buf
	ahead  bool     // the first byte of unread, which belongs to the next request, has been passed to net/http
	left   int64    // bytes of the request that net/http has not read; unused if last is set
	head   bool     // the method is HEAD
	last   bool     // the end of the request is ambiguous, so no request is read after it

	handled bool // the request has reached a handler
	idle    bool // the request has been answered
	ending  atomic.Uint32
	closed  atomic.Bool
}

// Values of stdConn.ending: the action of Close.
const (
	closeNow uint32 = iota
	linger          // close after a pause, because the client may still be sending
	giveBack        // return the connection to the fast lane
)

func newStdConn(c *conn) *stdConn { return &stdConn{conn: c, flow: rawio.New(c.Conn)} }

// handOver makes the connection continue in net/http, with the bytes that have been read. header is the length
// of the request's header, 0 if it is unknown.
func (c *conn) handOver(unread []byte, header int) {
	c.end = func() {
		if !c.leave() {
			c.close()
			return
		}
		if c.std != nil {
			c.std.begin(unread, header)
			return
		}
		std := newStdConn(c)
		if c.server.stays {
			c.std = std
		}
		std.begin(unread, header)
		c.server.std.push(std)
	}
}

// begin presents the request at the front of unread to net/http.
func (c *stdConn) begin(unread []byte, header int) {
	body, ok := bodyLength(unread[:header])
	c.unread, c.left, c.head = unread, int64(header)+body, isHead(unread)
	if c.ahead {
		c.unread, c.left = c.unread[1:], c.left-1
	}
	c.ahead, c.handled, c.idle = false, false, false
	if c.last = header == 0 || !ok; c.last {
		c.ending.Store(linger)
	}
}

// handBack returns the connection to the fast lane.
func (c *stdConn) handBack() {
	c.resume()
	go c.serve()
}

// resume prepares the connection for run, which starts with the bytes that net/http has not read.
func (c *stdConn) resume() {
	_ = c.SetDeadline(time.Time{})
	c.filled = copy(c.buf, c.unread)
	c.end, c.since, c.asleep = nil, c.server.tick.Load(), false
	c.enter(serving, c.since)
}

// next waits for the next request. It returns false if there is none and the connection has been closed.
func (c *stdConn) next() bool {
	c.resume()
	c.run()
	c.end()
	return !c.idle
}

func (c *stdConn) Read(b []byte) (int, error) {
	switch {
	case c.last:
		return c.take(b)
	case c.left > 0:
		n, err := c.take(b[:min(int64(len(b)), c.left)])
		c.left -= int64(n)
		return n, err
	case c.idle && c.std == nil:
		c.ending.Store(giveBack)
		return 0, io.EOF
	case c.idle:
		if !c.next() {
			return 0, io.EOF
		}
		return c.Read(b)
	case len(b) == 0:
		return 0, nil
	}
	// While a handler runs, net/http reads one byte to detect the end of the stream. This may be the first
	// byte of the next request, so it also stays in unread.
	for c.unread = c.unread[blankLength(c.unread):]; len(c.unread) == 0; c.unread = c.unread[blankLength(c.unread):] {
		n, err := c.flow.Read(c.buf[:1])
		if n == 0 {
			return 0, err
		}
		c.unread = c.buf[:1]
	}
	b[0], c.ahead = c.unread[0], true
	return 1, nil
}

// take reads the next bytes: first those in unread, then from the connection.
func (c *stdConn) take(b []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.flow.Read(b)
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// Write replaces the refusals of net/http itself, which are plain text and have a body even for HEAD.
func (c *stdConn) Write(b []byte) (int, error) {
	if !c.handled {
		if status, reason, ok := refusal(b); ok {
			c.ending.Store(linger)
			_, err := c.flow.Write(c.server.refuse(nil, status, invalidRequest+reason, c.head))
			return len(b), err
		}
	}
	return c.flow.Write(b)
}

// refusal parses an answer that net/http itself generated. ok is false if the answer is not a refusal.
func refusal(answer []byte) (status int, reason string, ok bool) {
	line, _, _ := bytes.Cut(answer, []byte("\r\n"))
	_, text, _ := strings.Cut(string(line), " ")
	code, text, _ := strings.Cut(text, " ")
	status, _ = strconv.Atoi(code)
	_, reason, found := strings.Cut(text, ": ")
	if !found {
		reason = strings.ToLower(text)
	}
	switch status {
	case http.StatusNotImplemented:
		reason = "the only supported transfer coding is chunked"
	case http.StatusExpectationFailed:
		reason = "the only supported expectation is 100-continue: send no other Expect"
	case http.StatusHTTPVersionNotSupported:
		reason = "the only supported versions are HTTP/1.1 and HTTP/1.0"
	}
	return status, reason, status >= http.StatusBadRequest
}

// CloseWrite lets net/http half-close the connection, so that the client receives the last answer.
func (c *stdConn) CloseWrite() error {
	if half, ok := c.conn.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *stdConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	switch c.ending.Load() {
	case giveBack:
		c.handBack()
	case linger:
		c.closeGently()
	default:
		c.close()
	}
	return nil
}

type stdConnKey struct{}

// watch installs hooks in std that record the progress of a request in its stdConn.
func watch(std *http.Server) {
	inner, connContext := std.Handler, std.ConnContext
	std.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, nc)
		}
		return context.WithValue(ctx, stdConnKey{}, nc.(*stdConn))
	}
	std.ConnState = func(nc net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			nc.(*stdConn).idle = true
		}
	}
	std.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(stdConnKey{}).(*stdConn)
		if r.ProtoMajor != 1 { // "PRI * HTTP/2.0", which net/http leaves to the handler; Write replaces the answer
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		c.handled = true
		if c.last || c.conn.last {
			w.Header().Set("Connection", "close")
		}
		inner.ServeHTTP(w, r)
	})
}
