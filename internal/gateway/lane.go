package gateway

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
)

// lane serves plain reads of postPath on the goroutine of the connection, without allocating.
type lane struct {
	*proxy
	server *fastlane.Server // set once, before the first connection
}

// conn returns the handler for a new connection.
func (l *lane) conn() fastlane.Handler { return &laneConn{lane: l} }

// laneConn serves the requests of one connection. Its fields are reused from request to request.
type laneConn struct {
	*lane
	peer   *peer
	sent   header
	id     []byte
	target []byte
	x      exchange
}

// Flushed implements fastlane.Handler.
func (c *laneConn) Flushed() {}

// Serve implements fastlane.Handler.
func (c *laneConn) Serve(out *fastlane.Output, q *fastlane.Request) {
	if !out.Flush() { // earlier answers need not wait for a reader
		return
	}
	if c.peer == nil {
		c.peer = newPeer(out.RemoteAddr(), out.LocalAddr())
	}
	x := &c.x
	x.start, x.head, x.repeatable, x.node, x.upstream = time.Now(), q.Head, true, nil, 0
	if c.sent.read(q.Fields) != nil {
		out.Abandon() // unreachable: the fast lane accepts valid fields only
		return
	}
	c.id = appendRequestID(c.id[:0], c.sent.requestID)
	c.target = append(append(c.target[:0], postPath+"?"...), q.Query...)
	method := http.MethodGet
	if q.Head {
		method = http.MethodHead
	}
	x.message = c.peer.appendRequest(x.message[:0], method, c.target, &c.sent, c.id)

	received := len(method) + len(c.target) + len("  HTTP/1.1\r\n\r\n") + len(q.Fields)
	if err := c.balancer.send(x); err != nil {
		p := c.failure(err, c.id)
		size := c.refuse(out, q, &p)
		c.metrics.answered(c.metrics.post(x.node), p.Status, x, received, size)
		return
	}
	size := c.relay(out, q)
	c.metrics.answered(c.metrics.post(x.node), x.answer.code, x, received, size)
}

// relay writes the answer and returns its size in bytes.
func (c *laneConn) relay(out *fastlane.Output, q *fastlane.Request) (size int) {
	a := &c.x.answer
	defer a.release()
	toEnd := q.HTTP10 && a.left < 0 // HTTP/1.0 has no chunks, so closing the connection ends the body
	b := appendVersion(out.Buffer(), q.HTTP10)
	b = append(b, a.line...)
	b = append(b, crlf...)
	b = append(b, a.kept...)
	if !a.dated {
		b = append(append(append(b, "Date: "...), c.server.Date()...), crlf...)
	}
	switch {
	case a.code == http.StatusNoContent: // has no framing fields (RFC 9110, section 8.6)
	case a.length >= 0:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), a.length, 10), crlf...)
	case !q.HTTP10 && (a.left < 0 || a.chunked && q.Head):
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = c.appendEnd(b, q.HTTP10, toEnd || out.Closing())
	if a.left < 0 {
		return c.relayUnknown(out, b, !toEnd)
	}
	for a.left > 0 {
		n := 0
		var err error
		b = slices.Grow(b, int(min(a.left, copyBytes)))
		n, err = a.Read(b[len(b):min(cap(b), len(b)+copyBytes)])
		b = b[:len(b)+n]
		if out.SetBuffer(b); err != nil {
			out.Flush()
			out.Abandon()
			return size + len(b)
		}
		if len(b) >= copyBytes {
			size += len(b)
			if !out.Flush() {
				return size
			}
			b = out.Buffer()
		}
	}
	out.SetBuffer(b)
	return size + len(b)
}

// copyBytes is the size of the parts in which a large body is relayed.
const copyBytes = 32 << 10

// relayUnknown writes the header in b and a body of unknown length.
func (c *laneConn) relayUnknown(out *fastlane.Output, b []byte, chunked bool) (size int) {
	part := make([]byte, copyBytes)
	for {
		n, err := c.x.answer.Read(part)
		if n > 0 && chunked {
			b = append(strconv.AppendInt(b, int64(n), 16), crlf...)
			b = append(append(b, part[:n]...), crlf...)
		} else {
			b = append(b, part[:n]...)
		}
		if err == io.EOF && chunked {
			b = append(b, "0\r\n\r\n"...)
		}
		size += len(b)
		out.SetBuffer(b)
		if !out.Flush() {
			return size
		}
		if err != nil {
			if err != io.EOF || !chunked {
				out.Abandon()
			}
			return size
		}
		b = out.Buffer()
	}
}

// refuse answers with a problem document and returns the size of the answer in bytes.
func (c *laneConn) refuse(out *fastlane.Output, q *fastlane.Request, p *httpkit.Problem) (size int) {
	body := p.Bytes()
	b := appendVersion(out.Buffer(), q.HTTP10)
	b = append(strconv.AppendInt(b, int64(p.Status), 10), ' ')
	b = append(b, http.StatusText(p.Status)...)
	b = append(b, "\r\nContent-Type: "+httpkit.ProblemType+"\r\nCache-Control: no-store\r\nDate: "...)
	b = append(append(b, c.server.Date()...), crlf...)
	if p.Status == http.StatusServiceUnavailable {
		b = append(b, "Retry-After: "+retryAfter+"\r\n"...)
	}
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10), crlf...)
	b = c.appendEnd(b, q.HTTP10, out.Closing())
	if !q.Head {
		b = append(b, body...)
	}
	out.SetBuffer(b)
	return len(b)
}

// appendVersion appends the start of the status line, with the client's version, as net/http does.
func appendVersion(b []byte, http10 bool) []byte {
	if http10 {
		return append(b, "HTTP/1.0 "...)
	}
	return append(b, "HTTP/1.1 "...)
}

// appendEnd appends the last fields and the empty line of a header.
func (c *laneConn) appendEnd(b []byte, http10, closing bool) []byte {
	switch {
	case closing && !http10:
		b = append(b, "Connection: close\r\n"...)
	case !closing && http10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(append(b, "X-Request-Id: "...), c.id...)
	return append(b, "\r\n\r\n"...)
}
