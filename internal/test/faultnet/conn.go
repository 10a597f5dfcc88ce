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
	// queueLimit bounds what waits in the proxy, in chunks. Delayed small
	// messages need one each: 1,024 of them in a 100 ms delay are 10,000 a second.
	queueLimit = 1024
)

// conn is one forwarded connection.
type conn struct {
	proxy     *Proxy
	index     int
	peers     [2]net.Conn // by direction, the one that receives
	closeOnce sync.Once
	done      chan struct{} // closed with the connection

	// Guarded by proxy.mu.
	head  []byte  // the first bytes from the client
	dead  [2]bool // the direction has lost bytes and never passes any again
	cutAt [2]bool // the next bytes of the direction close the connection
}

// chunk is some bytes on their way, or the end of a direction (err is not nil).
type chunk struct {
	bytes []byte
	err   error
	at    time.Time
}

// info needs proxy.mu.
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

// run forwards until both directions have ended. Each has a goroutine that
// reads and one that writes: one alone could not delay without also slowing.
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

// receive queues what the sender of a direction sends. The queue's last chunk
// is its end, unless the connection is closed before.
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

// remember keeps the first bytes of the client for the filters. A grown head is
// a new array, since a filter may hold the old one.
func (c *conn) remember(d Direction, b []byte) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if d == ToServer && len(c.head) < headSize {
		head := append([]byte(nil), c.head...)
		c.head = append(head, b[:min(len(b), headSize-len(head))]...)
	}
}

// send takes a direction's chunks to their receiver, as its faults allow.
func (c *conn) send(d Direction, queue <-chan chunk) {
	for next := range queue {
		f, ok := c.awaitDue(d, next.at)
		switch {
		case !ok:
			return
		case f.blackHole:
			c.swallow(d, next.bytes) // an end too: the receiver must not notice
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

// write passes bytes on, in pieces when they are throttled. It returns false
// when the connection is over.
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

// unreachable deals with a receiver that is gone. The sender hears of it, for
// which the connection is reset, unless that news falls into a black hole: then
// the sender goes on talking to nobody.
func (c *conn) unreachable(d Direction, b []byte) bool {
	if news, _ := c.proxy.faultsOf(c, d.opposite()); !news.blackHole {
		c.reset()
		return false
	}
	c.swallow(d.opposite(), nil)
	c.swallow(d, b)
	return true
}

// end passes on that a sender is done: the end of its stream as such, so that
// the other direction can still finish, and anything else as a reset.
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

// awaitDue waits while the direction is stalled, and until bytes that came in
// at that time are due. It returns the faults that hold then, or false when the
// connection is closed.
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

// rest waits out a throttled piece: at most a second, at one byte a second.
func (c *conn) rest(wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-c.done:
		return false
	}
}
