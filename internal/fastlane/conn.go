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
)

// Handler answers the requests of one connection. Its methods are called by one goroutine.
type Handler interface {
	// Serve adds the answer to q to out. It may block; then it should call out.Flush before, so
	// that the answers before this one do not wait with it, and return without an answer when Flush
	// returns false. When out.Closing returns true, the answer must say that the connection is closed
	// after it.
	Serve(out *Output, q *Request)
	// Flushed is called when all answers so far have been written, or could not be.
	Flushed()
}

// Sizes of the read buffer. It starts small, so that idle connections are cheap; a header that does not
// fit the large one is refused.
const (
	readBuffer    = 1 << 10
	maxReadBuffer = 16 << 10
)

// stdLeast is the number of bytes that net/http needs of every request but the first of a connection: when
// the stream ends with fewer, it closes the connection without an answer.
const stdLeast = 4

// phase is what a connection waits for.
type phase uint32

const (
	idle    phase = iota // for the first byte of a request
	reading              // for the rest of a header
	writing              // for the client to take answers
	serving              // for the handler
	left                 // handed to net/http, or being closed
	poked                // idle, and the sweep had it look for the end of the stream
	cut                  // the sweep has given it up
	fresh                // for the first byte of the connection
)

// conn is a connection in the fast lane.
type conn struct {
	net.Conn
	server *Server
	// status is the phase, and the tick of the server's clock at which it began: no timer is set
	// and no clock is read for a request, the server's sweep finds connections that take too long.
	status atomic.Uint64
	mu     sync.Mutex // held by the sweep from its change of status to its change of a deadline

	// The rest is the goroutine's that serves the connection.
	handler Handler // nil when net/http answers every request
	out     Output
	q       Request
	buf     []byte
	filled  int    // bytes in buf
	scanned int    // of them without the end of a header
	least   int    // of them that net/http would take for a request
	since   uint32 // tick at which the first of them came, or the last answer had been written
	heard   bool   // a byte has arrived on the connection
	asleep  bool   // poked since
	last    bool   // the connection closes after the next answer, or when there is nothing to read
	end     func() // runs after run: closes the connection, or hands it over

	// std is the connection as net/http has it, once that has it for good: it keeps the connection between
	// requests where handler is nil.
	std *stdConn
}

// enter changes the phase. It returns the one before; poked and cut come from the sweep.
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
	if c.filled > 0 { // net/http has left it unread
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

// onlyPoked reports whether err, of a read, comes from a poke; then the connection can be read again.
// An idle connection releases its buffers here, so that many idle connections are cheap. A late poke
// may interrupt a header instead: the connection is not idle then, and must be poked again later.
func (c *conn) onlyPoked(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if c.phase() == cut {
		if c.filled > 0 || c.last {
			return false
		}
		c.last = true // a request may have arrived in this moment: one more look
	}
	_ = c.SetReadDeadline(time.Time{})
	if c.filled == 0 {
		c.asleep = true
		c.out.buf = nil
		if len(c.buf) > readBuffer {
			c.buf = make([]byte, readBuffer)
		}
	}
	return true
}

func rawConn(nc net.Conn) syscall.RawConn {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// serveRaw serves the connection inside one RawConn.Read. Conn.Read tries a read before it waits, which
// mostly returns EAGAIN: a third of the system calls of a request. Inside RawConn.Read no edge of epoll
// after our last read is lost, so a read that does not fill the buffer may be followed by the wait at once.
// Only the end of the stream may come without an edge of its own, together with the last bytes: with half
// a request in the buffer the read is repeated at once, and the sweep pokes idle connections to read again.
func (c *conn) serveRaw(raw syscall.RawConn) {
	step := func(fd uintptr) (done bool) {
		c.out.fd = fd // open as long as step runs
		for c.prepare() {
			room := len(c.buf) - c.filled
			n, err := read(fd, c.buf[c.filled:])
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

// prepare makes room for more bytes and enters the phase of the wait for them. It reports whether the
// connection goes on reading.
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
		p = reading // and a header that comes byte by byte has no more time
	} else if c.asleep {
		p = poked
	} else if !c.heard {
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

// arrived answers what is complete in the buffer, to which n bytes have been added.
func (c *conn) arrived(n int, err error) {
	switch {
	case err == io.EOF && c.filled >= c.least:
		c.handOver(c.buf[:c.filled], 0) // net/http answers half a request with 400
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
	c.filled, c.heard = c.filled+n, true
	if c.enter(serving, now) == cut {
		if c.filled > n {
			c.end = c.close
			return
		}
		c.last = true // given up while it was idle, and yet here is a request
	}

	begin, end, v, closing := 0, 0, partial, false
	for begin < c.filled && !closing && c.out.err == nil {
		if end, v = c.next(c.buf[begin:c.filled]); v != complete {
			break
		}
		begin += end
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
		c.since = s.tick.Load() // not now: the handler may have waited since, and the write may have blocked
		c.filled = copy(c.buf, c.buf[begin:c.filled])
	}
}

// flush writes the answers so far.
func (c *conn) flush() {
	c.out.Flush()
	c.handler.Flushed()
}

// next looks for a request at the front of b. It returns the length of its header, 0 when b may not
// have all of it. A complete one has been parsed into c.q.
func (c *conn) next(b []byte) (header int, v verdict) {
	if len(b) < c.least {
		return 0, partial
	}
	header = findEnd(b, c.scanned)
	if header == 0 {
		c.scanned = len(b)
		if hasForeignLine(b) {
			return 0, other // and its client may wait for an answer to what it has sent
		}
		return 0, partial
	}
	c.scanned, c.least = 0, stdLeast
	if c.handler == nil || !c.server.shape.parse(b[:header], &c.q) {
		return header, other
	}
	return header, complete
}

// closing reports whether the connection closes after the answer to a request that b follows. Of
// requests that have arrived together the last one is answered so: the others must have answers too.
func (c *conn) closing(b []byte) bool {
	if !c.last && !c.server.draining.Load() {
		return false
	}
	return len(b) < stdLeast || findEnd(b, 0) == 0 && !hasForeignLine(b)
}

// notUnderstood begins the detail of the answer to a request that is not valid HTTP.
const notUnderstood = "the request is not understood: "

// refuseLength refuses a request whose header does not fit the read buffer.
func (c *conn) refuseLength() {
	status, reason := http.StatusRequestHeaderFieldsTooLarge, "the header"
	if bytes.IndexByte(c.buf, '\n') < 0 {
		status, reason = http.StatusRequestURITooLong, "the URL"
	}
	reason += " is too long: a request has 16 KiB for its URL and header"
	c.out.SetBuffer(c.server.refuse(c.out.Buffer(), status, notUnderstood+reason, isHead(c.buf)))
	c.out.Flush()
	c.end = c.closeGently
}

// leave ends the time in the fast lane: once it has returned true, the sweep sets no deadline on the
// connection. It returns false when the sweep has given the connection up.
func (c *conn) leave() bool {
	if c.enter(left, 0) == cut {
		return false
	}
	// The sweep may have decided on a poke before that without having set the deadline yet. It holds
	// mu from one to the other.
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.SetReadDeadline(time.Time{})
	return true
}

// limits are how long connections may wait, in ticks.
type limits struct{ idle, fresh, header, write uint32 }

// sweep gives the connection up when it takes too long, and pokes it when it falls idle.
func (c *conn) sweep(now uint32, most *limits) {
	status := c.status.Load()
	p, age := phase(status&0xff), now-uint32(status>>8)
	switch {
	case (p == idle || p == poked) && age > most.idle, p == fresh && age > most.fresh, p == reading && age > most.header:
		c.interrupt(status, cut, c.SetReadDeadline)
	case p == writing && age > most.write:
		c.interrupt(status, cut, c.SetWriteDeadline)
	case p == idle && age > 1:
		c.interrupt(status, poked, c.SetReadDeadline)
	}
}

// cutIdle gives the connection up if it is between requests. One that has just been accepted has a moment:
// its first request is on its way, most of all in a drain, which sends clients to new connections.
func (c *conn) cutIdle() {
	status := c.status.Load()
	age := c.server.tick.Load() - uint32(status>>8)
	if p := phase(status & 0xff); p == idle || p == poked || p == fresh && age > 1 {
		c.interrupt(status, cut, c.SetReadDeadline)
	}
}

// cutWrite gives the connection up if it waits for the client to take answers.
func (c *conn) cutWrite() {
	if status := c.status.Load(); phase(status&0xff) == writing {
		c.interrupt(status, cut, c.SetWriteDeadline)
	}
}

// interrupt changes the phase and ends the wait that the connection is in, unless something has
// happened since status was read: a deadline must never meet a connection that moves.
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

// lingerTime is how long a closed connection waits for its client to close too.
const lingerTime = 500 * time.Millisecond

// closeGently closes a connection after its last answer. Closed at once, the kernel would reset it when the
// client has sent more, and the client could lose the answer.
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
