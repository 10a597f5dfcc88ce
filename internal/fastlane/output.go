package fastlane

import (
	"net"
	"os"
	"unsafe"
)

// Output collects the answers to the requests that have arrived together, and writes them with one
// system call.
type Output struct {
	conn  net.Conn
	fd    uintptr     // of conn, or noFD
	guard func() bool // called before a write, which may block; false when the connection has been cut
	buf   []byte
	// large are bodies that are not copied: each follows the bytes of buf up to its offset.
	large []segment
	size  int
	err   error
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

// Append adds bytes to the answer.
func (o *Output) Append(b []byte) { o.buf = append(o.buf, b...) }

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
// is given up; an error stays, and later answers are dropped.
func (o *Output) Flush() {
	if len(o.buf) == 0 && len(o.large) == 0 {
		return
	}
	if o.err == nil {
		if o.guard() {
			o.err = o.write()
		} else {
			o.err = os.ErrDeadlineExceeded
		}
	}
	clear(o.large) // lets the bodies go
	o.buf, o.large, o.size = o.buf[:0], o.large[:0], 0
}

func (o *Output) write() error {
	if len(o.large) == 0 {
		sent := 0
		if o.fd != noFD {
			sent, _ = write(o.fd, o.buf)
		}
		if sent == len(o.buf) {
			return nil
		}
		_, err := o.conn.Write(o.buf[sent:]) // waits, and knows what the errors mean
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
	_, err := parts.WriteTo(o.conn) // writev
	return err
}
