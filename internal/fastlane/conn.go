package fastlane

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Handler answers the requests of one connection. Its methods are called by one goroutine.
type Handler interface {
	// Serve adds the answer to q to out. It may block; then it should call out.Flush before, so
	// that the answers before this one do not wait with it. With closing, the answer must say that
	// the connection is closed after it.
	Serve(out *Output, q *Request, closing bool)
	// Flushed is called when all answers so far have been written, or could not be.
	Flushed()
}

// Sizes of the read buffer. It starts small, so that idle connections are cheap, and a header that
// does not fit the large one is left to net/http, which refuses it.
const (
	readBuffer    = 1 << 10
	maxReadBuffer = 16 << 10
)

// stdLeast is how many bytes net/http wants to see of a request that is not the first of its
// connection: with less at its end, it closes without an answer.
const stdLeast = 4

// phase is what a connection waits for.
type phase uint32

const (
	idle    phase = iota // for the first byte of a request
	reading              // for the rest of a header
	writing              // for the client to take answers
	serving              // for the handler
	handed               // nothing here: net/http has it
)

// conn is a connection in the fast lane.
type conn struct {
	net.Conn
	server *Server
	// status is the phase, and the tick of the server's clock at which it began: no timer is set
	// and no clock is read for a request, the server's sweep finds connections that take too long.
	status atomic.Uint64
}

func (c *conn) enter(p phase) { c.enterSince(p, c.server.tick.Load()) }

func (c *conn) enterSince(p phase, tick uint32) { c.status.Store(uint64(tick)<<8 | uint64(p)) }

func (c *conn) phase() (p phase, since uint32) {
	s := c.status.Load()
	return phase(s & 0xff), uint32(s >> 8)
}

// serve runs the connection until it ends or is handed over.
func (c *conn) serve() {
	s := c.server
	handler := s.newHandler()
	buf := make([]byte, readBuffer)
	out := &Output{conn: c.Conn, guard: func() { c.enter(writing) }}
	var q Request
	filled, scanned := 0, 0 // bytes in buf, and of them without the end of a header
	var since uint32        // when the first of them came
	least := 1              // bytes that net/http would take for a request
	for {
		if filled == len(buf) {
			if len(buf) >= maxReadBuffer {
				c.handOver(buf[:filled])
				return
			}
			buf = append(make([]byte, 0, 4*len(buf)), buf...)[:4*len(buf)]
		}
		if filled == 0 {
			c.enter(idle)
			if s.stopping.Load() {
				c.close()
				return
			}
		} else {
			c.enterSince(reading, since) // a header that comes byte by byte has no more time
		}
		n, err := c.Conn.Read(buf[filled:])
		if err == io.EOF && filled >= least {
			c.handOver(buf[:filled]) // net/http knows what to say to half a request
			return
		}
		if err != nil {
			c.close()
			return
		}
		if filled == 0 {
			since = s.tick.Load()
		}
		filled += n

		pooled := outputs.Get().(*[]byte)
		out.buf = (*pooled)[:0]
		c.enter(serving)
		begin, v := 0, partial
		closing := false
		for begin < filled && !closing {
			var end int
			rest := buf[begin:filled]
			if len(rest) < least {
				v = partial
				break
			}
			if !s.shape.begins(rest) {
				v = other
				break
			}
			if end, v = findEnd(rest, scanned); v != complete {
				scanned = len(rest)
				break
			}
			scanned, least = 0, stdLeast
			if !s.shape.parse(rest[:end], &q) {
				v = other
				break
			}
			closing = s.stopping.Load()
			handler.Serve(out, &q, closing)
			begin += end
			if out.full() {
				out.Flush()
			}
		}
		out.Flush()
		handler.Flushed()
		*pooled, out.buf = out.buf, nil
		if cap(*pooled) <= 4*outputSize {
			outputs.Put(pooled)
		}
		switch {
		case out.err != nil:
			c.close()
			return
		case closing:
			c.closeGently(buf)
			return
		case v == other:
			c.handOver(buf[begin:filled])
			return
		}
		if begin > 0 {
			since = s.tick.Load()
		}
		filled = copy(buf, buf[begin:filled])
	}
}

// handOver gives the connection to net/http, with the bytes that it has not seen yet. They stay in
// the read buffer, which is not used here any more.
func (c *conn) handOver(unread []byte) {
	c.enter(handed)
	c.server.std.push(&stdConn{conn: c, unread: unread})
}

func (c *conn) close() {
	_ = c.Conn.Close()
	c.server.remove(c)
}

// closeGently ends a connection after an answer that said so. A client that has sent more must not
// have the answer taken from it by a reset.
func (c *conn) closeGently(buf []byte) {
	if tcp, ok := c.Conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		for range 64 {
			if _, err := c.Conn.Read(buf); err != nil {
				break
			}
		}
	}
	c.close()
}

// lingerTime is how long a closed connection waits for its client to close too.
const lingerTime = 500 * time.Millisecond

// stdConn is a connection as net/http sees it.
type stdConn struct {
	*conn
	unread []byte
	closed atomic.Bool
}

func (c *stdConn) Read(b []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(b, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	c.unread = nil // lets the read buffer go
	return c.conn.Conn.Read(b)
}

// CloseWrite lets net/http end a connection gently.
func (c *stdConn) CloseWrite() error {
	if tcp, ok := c.conn.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}

func (c *stdConn) Close() error {
	err := c.conn.Conn.Close()
	if !c.closed.Swap(true) {
		c.server.remove(c.conn)
	}
	return err
}
