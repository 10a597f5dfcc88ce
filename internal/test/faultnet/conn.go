package faultnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	headSize  = 4 << 10
	chunkSize = 16 << 10
	// queueLimit is the capacity of a queue, in chunks. A delayed small message takes one chunk, so with a
	// delay of 100 ms 10,000 messages per second fit.
	queueLimit = 1024
)

// conn is one forwarded connection.
type conn struct {
	proxy     *Proxy
	index     int
	peers     [2]net.Conn // receiving peer of each direction
	closeOnce sync.Once
	done      chan struct{} // closed with the connection

	// Guarded by proxy.mu.
	head  []byte  // first bytes from the client, at most headSize
	dead  [2]bool // the direction has lost bytes and forwards nothing any more
	cutAt [2]bool // the next bytes of the direction close the connection
}

// chunk is a piece of a stream, or its end if err is not nil.
type chunk struct {
	bytes []byte
	err   error
	at    time.Time
}

// info describes the connection for filters. proxy.mu must be held.
func (c *conn) info() Conn { return Conn{Index: c.index, Head: c.head} }

func (c *conn) close() {
	c.closeOnce.Do(func() {
		close(c.done)
		_ = c.peers[ToServer].Close()
		_ = c.peers[ToClient].Close()
	})
}

func (c *conn) reset() {
	c.closeOnce.Do(func() {
		close(c.done)
		reset(c.peers[ToServer])
		reset(c.peers[ToClient])
	})
}

// run forwards until both directions have ended. Each direction has one goroutine that reads and one that
// writes, because a single one could not delay bytes without limiting the rate.
func (c *conn) run() {
	var both sync.WaitGroup
	for _, d := range []Direction{ToServer, ToClient} {
		queue := make(chan chunk, queueLimit) // closed by receive
		both.Go(func() { c.receive(d, queue) })
		both.Go(func() { c.send(d, queue) })
	}
	both.Wait()
	c.close()
}

// receive reads from the sender of a direction into the queue. The last chunk is the end of the stream,
// unless the connection is closed first.
func (c *conn) receive(d Direction, queue chan<- chunk) {
	defer close(queue)
	from := c.peers[d.opposite()]
	buf := make([]byte, chunkSize)
	for {
		if !c.awaitUnstalled(d) {
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			b := append([]byte(nil), buf[:n]...)
			c.remember(d, b)
			if c.proxy.inspect(c, d, b) {
				c.proxy.lost[d].Add(int64(n))
				c.close()
				return
			}
			if !c.enqueue(queue, chunk{bytes: b, at: time.Now()}) {
				return
			}
		}
		if err != nil {
			c.enqueue(queue, chunk{err: err, at: time.Now()})
			return
		}
	}
}

func (c *conn) enqueue(queue chan<- chunk, next chunk) bool {
	select {
	case queue <- next:
		return true
	case <-c.done:
		return false
	}
}

// remember records the first bytes from the client, for the filters. It allocates a new array for a longer
// head, because a filter may be using the old one.
func (c *conn) remember(d Direction, b []byte) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if d == ToServer && len(c.head) < headSize {
		head := append([]byte(nil), c.head...)
		c.head = append(head, b[:min(len(b), headSize-len(head))]...)
	}
}

// send writes the chunks of a direction to their receiver, subject to the faults.
func (c *conn) send(d Direction, queue <-chan chunk) {
	for next := range queue {
		f, ok := c.awaitDue(d, next.at)
		switch {
		case !ok:
			return
		case f.blackHole:
			c.swallow(d, next.bytes) // also the end of the stream, which the receiver must not notice
		case next.err != nil:
			c.end(d, next.err)
		case !c.write(d, next.bytes):
			return
		}
	}
}

func (c *conn) swallow(d Direction, b []byte) {
	c.proxy.lost[d].Add(int64(len(b)))
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.dead[d] = true
}

// write forwards bytes, in small pieces if the direction is throttled. It returns false after the connection
// was closed.
func (c *conn) write(d Direction, b []byte) bool {
	for len(b) > 0 {
		f, ok := c.awaitDue(d, time.Time{})
		if !ok {
			return false
		}
		if f.blackHole {
			c.swallow(d, b)
			return true
		}
		piece := b
		if f.rate > 0 {
			piece = b[:min(len(b), max(1, f.rate/50))]
		}
		n, err := c.peers[d].Write(piece)
		c.proxy.passed[d].Add(int64(n))
		b = b[n:]
		if err != nil {
			return c.unreachable(d, b)
		}
		if f.rate > 0 && !c.rest(time.Duration(n)*time.Second/time.Duration(f.rate)) {
			return false
		}
	}
	return true
}

// unreachable handles a receiver that has disconnected. It resets the connection, unless the opposite
// direction is a black hole: then the sender must not notice, and its bytes are discarded.
func (c *conn) unreachable(d Direction, b []byte) bool {
	if back, _ := c.proxy.faultsOf(c, d.opposite()); !back.blackHole {
		c.reset()
		return false
	}
	c.swallow(d.opposite(), nil)
	c.swallow(d, b)
	return true
}

// end forwards the end of a stream. EOF becomes a half-close, so that the other direction can finish; any
// other error resets the connection.
func (c *conn) end(d Direction, err error) {
	if !errors.Is(err, io.EOF) {
		c.reset()
		return
	}
	_ = c.peers[d].(*net.TCPConn).CloseWrite() // fails only if the receiver is gone as well
}

func (c *conn) awaitUnstalled(d Direction) bool {
	for {
		f, changed := c.proxy.faultsOf(c, d)
		if !f.stall {
			return true
		}
		select {
		case <-changed:
		case <-c.done:
			return false
		}
	}
}

// awaitDue waits until the direction is not stalled and the delay of bytes received at that time has passed.
// It returns the faults in effect then, or false after the connection was closed.
func (c *conn) awaitDue(d Direction, at time.Time) (faults, bool) {
	for {
		f, changed := c.proxy.faultsOf(c, d)
		var due <-chan time.Time
		switch wait := f.delay - time.Since(at); {
		case f.stall:
		case f.delay > 0 && wait > 0:
			due = time.After(wait)
		default:
			return f, c.proxy.ctx.Err() == nil
		}
		select {
		case <-due:
		case <-changed:
		case <-c.done:
			return f, false
		}
	}
}

// rest waits after a throttled piece. The wait is at most one second, at one byte per second.
func (c *conn) rest(wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-c.done:
		return false
	}
}
