package fastlane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"heavy-read-api/internal/rawio"
)

// Handler answers the requests of one connection. Its methods are called by one goroutine.
type Handler interface {
	// Serve adds the answer to q to out. Before it blocks, it should call out.Flush, so that earlier
	// answers are not delayed, and return without an answer if Flush returns false. If out.Closing
	// returns true, the answer must carry Connection: close.
	Serve(out *Output, q *Request)
	// Flushed is called when all answers so far have been written or discarded.
	Flushed()
}

// Prefetcher is a Handler that prepares for requests before it serves them.
type Prefetcher interface {
	Handler
	// Prefetch is called with the bytes that follow the current request, when there are any: mostly further requests. It
	// must not block or keep b. It returns how many of the bytes it has looked at. It is called again when those have been
	// served.
	Prefetch(b []byte) (seen int)
}

// Size of the read buffer in bytes. It starts small, so that idle connections are cheap, and grows up to
// maxReadBuffer. A header that does not fit is refused. postBuffer is the first size where bodies are read too.
const (
	readBuffer    = 1 << 10
	postBuffer    = 4 << 10
	maxReadBuffer = 16 << 10
)

// stdLeast is the minimum number of bytes of a request for net/http, except for the first request of a
// connection: if the stream ends after fewer bytes, net/http closes the connection without an answer.
const stdLeast = 4

// phase is the state of a connection.
type phase uint32

const (
	idle    phase = iota // waits for the first byte of a request
	reading              // waits for the rest of a header
	writing              // waits for the client to receive answers
	serving              // runs the handler
	left                 // handed over to net/http, or being closed
	poked                // idle, and the sweep has interrupted the wait to check for the end of the stream
	cut                  // the sweep has interrupted the connection to close it
	fresh                // waits for the first byte of the connection
)

// conn is a connection in the fast lane.
type conn struct {
	net.Conn
	server *Server
	// status is the phase (8 bits) and the tick of the server's clock at which it began. Requests set no
	// timer and read no clock: the server's sweep finds the connections that exceed a timeout.
	status atomic.Uint64
	mu     sync.Mutex // held by the sweep while it changes status and the deadline

	// The rest belongs to the goroutine that serves the connection.
	handler Handler // nil if net/http answers every request
	out     Output
	q       Request
	buf     []byte
	filled  int    // number of bytes in buf
	scanned int    // number of bytes that were searched for the end of a header without finding it
	least   int    // minimum number of bytes that net/http accepts as the beginning of a request
	since   uint32 // tick at which the first byte in buf arrived or the last answer was written
	used    bool   // a byte has arrived on the connection
	asleep  bool   // the connection has been poked since it became idle
	last    bool   // the connection closes after the next answer, or if there is nothing to read
	end     func() // called after run: closes the connection or hands it over

	// std is set once net/http has the connection permanently (see Server.stays).
	std *stdConn
}

// enter changes the phase. It returns the previous phase, which is poked or cut if the sweep has set it.
func (c *conn) enter(p phase, tick uint32) (before phase) {
	return phase(c.status.Swap(uint64(tick)<<8|uint64(p)) & 0xff)
}

func (c *conn) phase() phase { return phase(c.status.Load() & 0xff) }

// serve runs the connection until it ends or is handed over.
func (c *conn) serve() {
	c.run()
	c.end()
}

// run reads and answers requests until it has set end.
func (c *conn) run() {
	if c.filled > 0 { // bytes that net/http has not read
		c.arrived(0, nil)
	}
	if raw := rawConn(c.Conn); raw != nil {
		c.serveRaw(raw)
	} else {
		for c.prepare() {
			if n, err := c.Conn.Read(c.buf[c.filled:]); !c.onlyPoked(err) {
				c.arrived(n, err)
			}
		}
	}
}

// onlyPoked reports whether the read error err was caused by a poke, so that reading can continue. It also
// releases the buffers of an idle connection, so that many idle connections are cheap. A late poke may
// interrupt the reading of a header. Then the connection is not idle, and must be poked again later.
func (c *conn) onlyPoked(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if c.phase() == cut {
		if c.filled > 0 || c.last {
			return false
		}
		c.last = true // a request may have arrived in this moment, so read once more
	}
	_ = c.SetReadDeadline(time.Time{})
	if c.filled == 0 {
		c.asleep = true
		c.out.buf = nil
		if len(c.buf) > c.server.buffer {
			c.buf = make([]byte, c.server.buffer)
		}
	}
	return true
}

// serveRaw serves the connection inside one RawConn.Read. Conn.Read tries to read before it waits. That read
// mostly returns EAGAIN and would be a third of the system calls of a request. Inside RawConn.Read no epoll
// edge after the last read is lost, so after a read that does not fill the buffer, step can wait immediately.
// Only the end of the stream may arrive without an edge of its own, together with the last bytes. Therefore the
// read is repeated at once if half a request is in the buffer, and the sweep pokes idle connections.
func (c *conn) serveRaw(raw syscall.RawConn) {
	step := func(fd uintptr) (done bool) {
		c.out.fd = fd // valid while step runs
		for c.prepare() {
			room := len(c.buf) - c.filled
			n, err := rawio.Read(fd, c.buf[c.filled:])
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				if c.last && c.filled == 0 {
					c.end = c.close
				}
				return c.end != nil
			case n == 0 && err == nil:
				err = io.EOF
			}
			if c.arrived(n, err); n < room && n > 0 && c.filled == 0 {
				return !c.prepare()
			}
		}
		return true
	}
	for c.end == nil {
		err := raw.Read(step)
		c.out.fd = noFD
		if err != nil && !c.onlyPoked(err) {
			c.end = c.close
		}
	}
}

// prepare makes room for more bytes and enters the phase for the next read. It reports whether the connection
// continues to read.
func (c *conn) prepare() bool {
	if c.end != nil {
		return false
	}
	if c.filled == len(c.buf) {
		if len(c.buf) >= maxReadBuffer {
			c.refuseLength()
			return false
		}
		c.buf = append(make([]byte, 0, 4*len(c.buf)), c.buf...)[:4*len(c.buf)]
	}
	p := idle
	if c.filled > 0 {
		p = reading // since is not changed, so a header that arrives byte by byte gets no additional time
	} else if c.asleep {
		p = poked
	} else if !c.used {
		p = fresh
	}
	if c.enter(p, c.since) == cut {
		if c.filled > 0 {
			c.end = c.close
		}
		c.last = true
	}
	return c.end == nil
}

// arrived answers the complete requests in the buffer after a read of n bytes. err is the error of the read.
func (c *conn) arrived(n int, err error) {
	switch {
	case err == io.EOF && c.filled >= c.least:
		c.handOver(c.buf[:c.filled], 0) // net/http answers an incomplete request with 400
		return
	case err != nil:
		c.end = c.close
		return
	}
	s := c.server
	now := s.tick.Load()
	if c.filled == 0 {
		c.since, c.asleep = now, false
	}
	c.filled, c.used = c.filled+n, true
	if c.enter(serving, now) == cut {
		if c.filled > n {
			c.end = c.close
			return
		}
		c.last = true // cut while it was idle, but a request has arrived
	}

	begin, end, seen, v, closing := 0, 0, 0, partial, false
	for !closing && c.out.err == nil {
		if begin += blankLength(c.buf[begin:c.filled]); begin == c.filled {
			v = partial
			break
		}
		if end, v = c.next(c.buf[begin:c.filled]); v != complete {
			break
		}
		begin += end
		if begin < c.filled && begin >= seen {
			if p, ok := c.handler.(Prefetcher); ok {
				seen = begin + p.Prefetch(c.buf[begin:c.filled])
			}
		}
		c.out.closing, c.out.after = c.q.close, c.buf[begin:c.filled]
		c.handler.Serve(&c.out, &c.q)
		closing = c.out.closing
		if c.out.full() {
			c.flush()
		}
	}
	if c.handler != nil {
		c.flush()
	}
	switch {
	case c.out.err != nil:
		c.end = c.close
	case closing:
		c.end = c.closeGently
	case v == other:
		c.handOver(c.buf[begin:c.filled], end)
	case begin > 0:
		c.since = s.tick.Load() // a new value, because the handler or the write may have blocked
		c.filled = copy(c.buf, c.buf[begin:c.filled])
	}
}

func (c *conn) flush() {
	c.out.Flush()
	c.handler.Flushed()
}

// next searches for a request at the front of b. If v is complete, the request has been parsed into c.q, and end is its
// length. Otherwise end is the length of its header, 0 if the end of the header has not been found.
func (c *conn) next(b []byte) (end int, v verdict) {
	if len(b) < c.least {
		return 0, partial
	}
	header := findEnd(b, c.scanned)
	if header == 0 {
		c.scanned = len(b)
		if hasForeignLine(b) {
			return 0, other // the client may be waiting for an answer without sending more
		}
		return 0, partial
	}
	c.scanned, c.least = 0, stdLeast
	// If net/http has the first byte of the request already, it must also get the rest.
	if c.handler == nil || c.std != nil && c.std.ahead || !c.server.shape.parse(b[:header], &c.q) {
		return header, other
	}
	if c.q.post {
		if c.q.length > int64(len(b)-header) {
			return header, other // net/http reads the rest of the body, with its timeouts
		}
		c.q.Body = b[header : header+int(c.q.length)]
	}
	return header + len(c.q.Body), complete
}

// closing reports whether the connection closes after the answer to the current request. b has the bytes after
// that request. If they contain another request, that one must be answered first.
func (c *conn) closing(b []byte) bool {
	if !c.last && !c.server.draining.Load() {
		return false
	}
	b = b[blankLength(b):]
	return len(b) < stdLeast || findEnd(b, 0) == 0 && !hasForeignLine(b)
}

// invalidRequest begins the detail of the answer to a request that is not valid HTTP.
const invalidRequest = "the request is invalid: "

// refuseLength refuses a request whose header does not fit the read buffer.
func (c *conn) refuseLength() {
	status, reason := http.StatusRequestHeaderFieldsTooLarge, "the header"
	if bytes.IndexByte(c.buf, '\n') < 0 {
		status, reason = http.StatusRequestURITooLong, "the URL"
	}
	reason += " is too long: the URL and the header together may have at most 16 KiB"
	c.out.SetBuffer(c.server.refuse(c.out.Buffer(), status, invalidRequest+reason, isHead(c.buf)))
	c.out.Flush()
	c.end = c.closeGently
}

// leave takes the connection out of the fast lane: once it has returned true, the sweep sets no deadline on the
// connection. It returns false if the sweep has cut the connection.
func (c *conn) leave() bool {
	if c.enter(left, 0) == cut {
		return false
	}
	// The sweep may have changed the status to poked before this and not have set the deadline yet. It holds
	// mu for both, so after Lock the deadline is set and can be removed.
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.SetReadDeadline(time.Time{})
	return true
}

// limits are the timeouts of connections, in ticks.
type limits struct{ idle, fresh, header, write uint32 }

// sweep cuts the connection if it exceeds a timeout, and pokes it if it has become idle.
func (c *conn) sweep(now uint32, limit *limits) {
	status := c.status.Load()
	p, age := phase(status&0xff), now-uint32(status>>8)
	switch {
	case (p == idle || p == poked) && age > limit.idle, p == fresh && age > limit.fresh, p == reading && age > limit.header:
		c.interrupt(status, cut, c.SetReadDeadline)
	case p == writing && age > limit.write:
		c.interrupt(status, cut, c.SetWriteDeadline)
	case p == idle && age > 1:
		c.interrupt(status, poked, c.SetReadDeadline)
	}
}

// cutIdle cuts the connection if it is between requests. A connection that has just been accepted is left alone
// for a moment: its first request is probably in transit, because the drain makes clients open new connections.
func (c *conn) cutIdle() {
	status := c.status.Load()
	age := c.server.tick.Load() - uint32(status>>8)
	if p := phase(status & 0xff); p == idle || p == poked || p == fresh && age > 1 {
		c.interrupt(status, cut, c.SetReadDeadline)
	}
}

// cutWrite cuts the connection if it waits for the client to receive answers.
func (c *conn) cutWrite() {
	if status := c.status.Load(); phase(status&0xff) == writing {
		c.interrupt(status, cut, c.SetWriteDeadline)
	}
}

// interrupt changes the phase and ends the current wait of the connection, unless the status has changed since
// the caller read it. So a deadline never interrupts a connection that has made progress.
func (c *conn) interrupt(status uint64, to phase, setDeadline func(time.Time) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.CompareAndSwap(status, status&^0xff|uint64(to)) {
		_ = setDeadline(expired)
	}
}

// expired is a deadline that has passed.
var expired = time.Unix(1, 0)

func (c *conn) close() {
	_ = c.Conn.Close()
	c.server.remove(c)
}

// lingerTime is the time for which a half-closed connection waits for its client to close.
const lingerTime = 500 * time.Millisecond

// closeGently closes a connection after its last answer. It half-closes the connection first: if the client has
// sent more bytes, an immediate close would make the kernel reset the connection, and the client could lose the
// answer.
func (c *conn) closeGently() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok && c.leave() && tcp.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		for range 64 {
			if _, err := c.Conn.Read(c.buf); err != nil {
				break
			}
		}
	}
	c.close()
}
