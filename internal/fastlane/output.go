package fastlane

import (
	"errors"
	"net"
	"os"
	"unsafe"
)

// Output collects the answers to the requests that have arrived together, and writes them with one
// system call.
type Output struct {
	conn *conn
	fd   uintptr // file descriptor of conn while its goroutine may use it, else noFD
	buf  []byte
	// large are bodies that are not copied: each follows the bytes of buf up to its offset.
	large []segment
	size  int
	err   error

	after   []byte // what has arrived after the request that is being answered
	closing bool   // its answer carries Connection: close
}

const noFD = ^uintptr(0)

type segment struct {
	at   int
	body []byte
}

const (
	// largeBody is from where a body costs less as a segment of its own than as a copy.
	largeBody = 8 << 10
	// maxOutput bounds what waits for one write: a client that does not read holds as much.
	maxOutput = 64 << 10
)

// Closing reports whether the answer to the request at hand must say that the connection closes after
// it. A handler that waits asks after the wait: the server may have begun to drain meanwhile.
func (o *Output) Closing() bool {
	o.closing = o.closing || o.conn.closing(o.after)
	return o.closing
}

// Abandon gives the connection up: the answer cannot be completed. What has not been flushed is lost.
func (o *Output) Abandon() { o.err = errAbandoned }

var errAbandoned = errors.New("the answer cannot be completed")

// RemoteAddr returns the address of the client.
func (o *Output) RemoteAddr() net.Addr { return o.conn.RemoteAddr() }

// LocalAddr returns the address that the client has connected to.
func (o *Output) LocalAddr() net.Addr { return o.conn.LocalAddr() }

// Buffer returns the buffer to append to; hand it back with SetBuffer.
func (o *Output) Buffer() []byte { return o.buf }

// SetBuffer takes the buffer that Buffer returned, with more bytes appended.
func (o *Output) SetBuffer(b []byte) { o.buf = b }

// Body adds the body of an answer, without a copy when it is large: it must not change any more.
func (o *Output) Body(body string) {
	if len(body) < largeBody {
		o.buf = append(o.buf, body...)
		return
	}
	o.large = append(o.large, segment{at: len(o.buf), body: unsafe.Slice(unsafe.StringData(body), len(body))})
	o.size += len(body)
}

// full reports whether the answers should be written before there are more.
func (o *Output) full() bool { return o.size+len(o.buf) >= maxOutput }

// Flush writes what has been collected. It blocks until the client has taken it or the connection
// is given up. It returns false after an error, which stays: later answers are dropped.
func (o *Output) Flush() (ok bool) {
	if o.err == nil && len(o.buf)+len(o.large) > 0 {
		o.err = o.write()
	}
	clear(o.large) // lets the bodies go
	o.buf, o.large, o.size = o.buf[:0], o.large[:0], 0
	return o.err == nil
}

// write writes without blocking if it can. The connection is in the writing phase only while the write
// may block: the handler's time must not count against the client's write timeout. The sweep never cuts a
// connection in the serving phase, so it is enough to look for that after the write.
func (o *Output) write() error {
	sent := 0
	if o.fd != noFD && len(o.large) == 0 {
		if sent, _ = write(o.fd, o.buf); sent == len(o.buf) {
			return nil
		}
	}
	now := o.conn.server.tick.Load()
	o.conn.enter(writing, now)
	if len(o.large) > 0 {
		h := &pin{bodies: o.large, since: now, cut: o.conn.cutWrite}
		o.conn.server.pins.hold(h)
		defer o.conn.server.pins.release(h)
	}
	err := o.block(sent)
	if o.conn.enter(serving, o.conn.server.tick.Load()) == cut && err == nil {
		err = os.ErrDeadlineExceeded
	}
	return err
}

// block writes all but the first sent bytes of buf; with large bodies, sent is 0.
func (o *Output) block(sent int) error {
	if len(o.large) == 0 {
		_, err := o.conn.Write(o.buf[sent:]) // maps errno to the errors of package net
		return err
	}
	parts := make(net.Buffers, 0, 2*len(o.large)+1)
	from := 0
	for _, s := range o.large {
		if s.at > from {
			parts = append(parts, o.buf[from:s.at])
		}
		parts = append(parts, s.body)
		from = s.at
	}
	if from < len(o.buf) {
		parts = append(parts, o.buf[from:])
	}
	_, err := parts.WriteTo(o.conn.Conn) // writev
	return err
}
