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
)

// stdConn is a connection as net/http sees it: it has one request. Until that has been answered, Read
// returns no byte behind it, so that none is left in net/http's buffer. Then Read reports the end of the
// stream, and the Close that follows gives the connection back to the fast lane. A server without a lane
// handler saves the way there and back: Read waits for the next request as the fast lane does.
type stdConn struct {
	*conn
	unread []byte // of what has been read from the connection; a part of buf
	ahead  bool   // net/http has been given the first byte of unread, which begins the next request
	left   int64  // bytes of the request that net/http has not read; not used with last
	head   bool   // the method is HEAD
	last   bool   // only net/http can tell where the request ends: nothing is read after it

	handled bool // a handler has got the request
	idle    bool // the request has been answered
	ending  atomic.Uint32
	closed  atomic.Bool
}

// What Close does.
const (
	closeNow uint32 = iota
	linger          // the client may still be sending
	giveBack
)

// handOver has the connection given to net/http, with the bytes that have been read. header is the length
// of the request's header, 0 when that is not known.
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
		std := &stdConn{conn: c}
		if c.handler == nil {
			c.std = std
		}
		std.begin(unread, header)
		c.server.std.push(std)
	}
}

// begin makes net/http see the request at the front of unread.
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

// resume prepares run, which begins with the bytes that net/http has not read.
func (c *stdConn) resume() {
	_ = c.SetDeadline(time.Time{})
	c.filled = copy(c.buf, c.unread)
	c.end, c.since, c.asleep = nil, c.server.tick.Load(), false
	c.enter(serving, c.since)
}

// next waits for the next request. It returns false when there is none; then the connection is closed.
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
	// net/http watches for the end of the stream while a handler runs, and takes a byte of the next
	// request for a sign of life. It stays unread.
	if len(c.unread) == 0 {
		n, err := c.conn.Conn.Read(c.buf[:1])
		if n == 0 {
			return 0, err
		}
		c.unread = c.buf[:1]
	}
	b[0], c.ahead = c.unread[0], true
	return 1, nil
}

// take reads the next bytes of the connection.
func (c *stdConn) take(b []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.conn.Conn.Read(b)
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// Write replaces net/http's own refusals, which are plain text and have a body even to HEAD.
func (c *stdConn) Write(b []byte) (int, error) {
	if !c.handled {
		if status, reason, ok := refusal(b); ok {
			c.ending.Store(linger)
			_, err := c.conn.Conn.Write(c.server.refuse(nil, status, notUnderstood+reason, c.head))
			return len(b), err
		}
	}
	return c.conn.Conn.Write(b)
}

// refusal takes an answer of net/http's apart. ok is false when it does not refuse anything.
func refusal(answer []byte) (status int, reason string, ok bool) {
	line, _, _ := bytes.Cut(answer, []byte("\r\n"))
	_, text, _ := strings.Cut(string(line), " ")
	code, text, _ := strings.Cut(text, " ")
	status, _ = strconv.Atoi(code)
	_, reason, found := strings.Cut(text, ": ")
	if !found {
		reason = strings.ToLower(text)
	}
	if status == http.StatusNotImplemented {
		reason = "of the transfer codings, only chunked is supported"
	}
	return status, reason, status >= http.StatusBadRequest
}

// CloseWrite lets net/http end a connection gently.
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

// watch has the connections of an http.Server learn where their request is.
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
		c.handled = true
		if c.last || c.conn.last {
			w.Header().Set("Connection", "close")
		}
		inner.ServeHTTP(w, r)
	})
}
