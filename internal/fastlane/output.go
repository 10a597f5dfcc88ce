package fastlane

import (
	"errors"
	"net"
	"os"
	"unsafe"

	"heavy-read-api/internal/rawio"
)

// Output collects the answers to requests that have arrived together and writes them with one system call.
type Output struct {
	conn *conn
	fd   uintptr // file descriptor of conn while its goroutine may use it, else noFD
	buf  []byte
	// large has the bodies that are not copied into buf.
	large []segment
	size  int   // total size of large, in bytes
	err   error // first error; after it nothing is written

	after   []byte // bytes received after the request that is being answered
	closing bool   // the current answer carries Connection: close
}

const noFD = ^uintptr(0)

// segment is a body that is written between buf[:at] and buf[at:].
type segment struct {
	at   int
	body []byte
}

const (
	// largeBody is the size from which writing a body as a segment is cheaper than copying it, in bytes.
	largeBody = 8 << 10
	// maxOutput is the size from which collected answers are written, in bytes. It bounds the memory for a
	// client that does not read.
	maxOutput = 64 << 10
)

// Closing reports whether the answer to the current request must carry Connection: close. A handler that waits
// must call it after the wait, because the drain may have begun in the meantime.
func (o *Output) Closing() bool {
	o.closing = o.closing || o.conn.closing(o.after)
	return o.closing
}

// Abandon closes the connection because the answer cannot be completed. Bytes that have not been flushed are
// discarded.
func (o *Output) Abandon() { o.err = errAbandoned }

var errAbandoned = errors.New("the answer cannot be completed")

// RemoteAddr returns the address of the client.
func (o *Output) RemoteAddr() net.Addr { return o.conn.RemoteAddr() }

// LocalAddr returns the address to which the client is connected.
func (o *Output) LocalAddr() net.Addr { return o.conn.LocalAddr() }

// Buffer returns the buffer. The caller appends the answer and passes the result to SetBuffer.
func (o *Output) Buffer() []byte { return o.buf }

// SetBuffer replaces the buffer by b, which must be the result of appending to Buffer.
func (o *Output) SetBuffer(b []byte) { o.buf = b }

// Body adds the body of an answer. A large body is not copied.
func (o *Output) Body(body string) {
	if len(body) < largeBody {
		o.buf = append(o.buf, body...)
		return
	}
	o.large = append(o.large, segment{at: len(o.buf), body: unsafe.Slice(unsafe.StringData(body), len(body))})
	o.size += len(body)
}

// full reports whether the collected answers should be written before another is added.
func (o *Output) full() bool { return o.size+len(o.buf) >= maxOutput }

// Flush writes the collected answers. It blocks until they are written or the connection is cut. After an
// error it returns false, now and later, and answers are discarded.
func (o *Output) Flush() (ok bool) {
	if o.err == nil && len(o.buf)+len(o.large) > 0 {
		o.err = o.write()
	}
	clear(o.large) // releases the bodies
	o.buf, o.large, o.size = o.buf[:0], o.large[:0], 0
	return o.err == nil
}

// write writes without blocking if possible. The connection is in the writing phase only while the write may
// block, so that the time of the handler does not count against the client's write timeout. The sweep never
// cuts a connection in the serving phase, so checking for a cut after the write is sufficient.
func (o *Output) write() error {
	sent := 0
	if o.fd != noFD && len(o.large) == 0 {
		if sent, _ = rawio.Write(o.fd, o.buf); sent == len(o.buf) {
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

// block writes everything except the first sent bytes of buf. With large bodies, sent is 0.
func (o *Output) block(sent int) error {
	if len(o.large) == 0 {
		_, err := o.conn.Write(o.buf[sent:])
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
