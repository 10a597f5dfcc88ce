package gateway

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxResponseHeader = 64 << 10         // bytes
	idleConnsPerNode  = 320              // as APISIX keeps them
	idleTimeout       = 60 * time.Second // shorter than the readers' 75 s, so that the gateway closes idle connections first
	upstreamBuffer    = 4 << 10          // bytes; a whole answer with a small post fits
)

var (
	errMalformedAnswer = errors.New("the reader's answer is malformed")
	errStale           = errors.New("the connection was closed while it was idle")
)

// pool keeps the idle connections to one reader.
type pool struct {
	addr    string
	shared  *pools
	mu      sync.Mutex  // guards the rest
	idle    []*upstream // the one that was used last is at the end
	retired bool        // no connection is kept any more
}

// pools is what the pools of all readers have in common.
type pools struct {
	timeout time.Duration // bound of a connect and of the wait for an answer's header
	most    int64         // idle connections, all readers together
	idle    atomic.Int64
}

// upstream is a connection to a reader. One goroutine uses it at a time.
type upstream struct {
	net.Conn
	raw      syscall.RawConn
	step     func(fd uintptr) bool // of the read that sends a request
	buf      []byte
	from, to int       // bytes of buf that have been read and not used
	deadline time.Time // of the connection
	since    time.Time // when it became idle

	request []byte // what step has to send
	sent    int    // bytes of it, -1 before step has begun
	err     error  // of step
}

// try sends a request to n and reads the header of its answer.
func (n *node) try(x *exchange) error { return n.pool.do(x) }

// do sends a request and reads the header of its answer. A kept connection may turn out to be closed; then the
// request is sent on another one.
func (p *pool) do(x *exchange) error {
	for {
		u := p.take()
		kept := u != nil
		if !kept {
			var err error
			if u, err = p.dial(); err != nil {
				return err
			}
		}
		err := u.do(x, p.shared.timeout)
		if err == nil {
			x.answer.pool = p
			return nil
		}
		_ = u.Close()
		if !kept || u.to > 0 || isTimeout(err) {
			return err
		}
		p.drop() // the other ones were probably closed with it
	}
}

func (p *pool) dial() (*upstream, error) {
	conn, err := (&net.Dialer{Timeout: p.shared.timeout, KeepAlive: 15 * time.Second}).Dial("tcp", p.addr)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	u := &upstream{Conn: conn, raw: raw, buf: make([]byte, upstreamBuffer)}
	u.step = u.sendAndReceive
	return u, nil
}

func (p *pool) take() *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	u := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	p.shared.idle.Add(-1)
	return u
}

func (p *pool) put(u *upstream) {
	u.from, u.to, u.since = 0, 0, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || len(p.idle) >= idleConnsPerNode || p.shared.idle.Load() >= p.shared.most {
		_ = u.Close()
		return
	}
	p.shared.idle.Add(1) // several pools may pass the bound at the same moment, by one connection each
	p.idle = append(p.idle, u)
}

// expire closes the connections that have been idle since before.
func (p *pool) expire(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && p.idle[n].since.Before(before) {
		_ = p.idle[n].Close()
		n++
	}
	p.shared.idle.Add(-int64(n))
	p.idle = slices.Delete(p.idle, 0, n)
}

// drop closes all idle connections.
func (p *pool) drop() { p.expire(time.Now().Add(time.Hour)) }

// retire closes the pool: its reader has left the list.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.drop()
}

// do sends a request and reads the header of its answer.
func (u *upstream) do(x *exchange, timeout time.Duration) error {
	// A deadline is a timer in the runtime, so it is set ahead and only now and then: it is late by an eighth
	// at most.
	if now := time.Now(); now.Add(timeout).After(u.deadline) {
		u.deadline = now.Add(timeout + timeout/8)
		if err := u.SetDeadline(u.deadline); err != nil {
			return err
		}
	}
	u.request, u.sent, u.err = x.message, -1, nil
	err := u.raw.Read(u.step)
	u.request = nil
	if err == nil {
		err = u.err
	}
	if err != nil {
		return err
	}
	if u.sent < len(x.message) {
		if _, err := u.Write(x.message[u.sent:]); err != nil {
			return err
		}
	}
	seen := 0
	for {
		end := bytes.Index(u.buf[seen:u.to], []byte("\r\n\r\n"))
		if end >= 0 {
			final, err := x.answer.parse(u.buf[u.from:seen+end+2], x.head)
			if err != nil {
				return err
			}
			u.from, seen = seen+end+4, seen+end+4
			if final {
				x.answer.conn = u
				return u.limitBody(x)
			}
			continue
		}
		seen = max(u.from, u.to-3)
		if err := u.fill(); err != nil {
			return err
		}
	}
}

// sendAndReceive is a step of RawConn.Read, which has cleared the poller's memory of earlier events: whatever
// arrives from now on wakes the goroutine. An idle connection has nothing to read: what can be read is its end, or
// bytes that belong to no request. Like this a request costs no more system calls than with Write and Read, and is
// never sent on a connection that is known to be closed.
func (u *upstream) sendAndReceive(fd uintptr) (done bool) {
	if u.sent < 0 {
		u.sent = 0
		if n, err := syscall.Read(int(fd), u.buf[:1]); err != syscall.EAGAIN && err != syscall.EINTR {
			if u.err = err; n >= 0 && err == nil {
				u.err = errStale
			}
			return true
		}
		n, err := syscall.Write(int(fd), u.request)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return true
		case err != nil:
			u.err = err
			return true
		}
		u.sent = n
		return n < len(u.request)
	}
	n, err := syscall.Read(int(fd), u.buf[u.to:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return false
	case err != nil:
		u.err = err
	case n == 0:
		u.err = io.ErrUnexpectedEOF
	default:
		u.to += n
	}
	return true
}

// fill reads more of a header.
func (u *upstream) fill() error {
	if u.to == len(u.buf) {
		if len(u.buf) >= maxResponseHeader {
			return errMalformedAnswer
		}
		u.buf = append(make([]byte, 0, 4*len(u.buf)), u.buf...)[:4*len(u.buf)]
	}
	n, err := u.Conn.Read(u.buf[u.to:])
	u.to += n
	if n > 0 {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// limitBody gives the body of an answer its time, unless all of it is there.
func (u *upstream) limitBody(x *exchange) error {
	if x.answer.left >= 0 && x.answer.left <= int64(u.to-u.from) {
		return nil
	}
	u.deadline = time.Time{} // the next request sets its own
	return u.SetDeadline(x.start.Add(requestTimeout))
}

// read reads a body, first from what came with the header.
func (u *upstream) read(p []byte) (int, error) {
	if u.from < u.to {
		n := copy(p, u.buf[u.from:u.to])
		u.from += n
		return n, nil
	}
	return u.Conn.Read(p)
}

// answer is what a reader has answered. Its slices are valid until close.
type answer struct {
	header
	code int
	line []byte // status code and reason
	left int64  // bytes of the body that have not been read; -1 when its length is not announced

	conn *upstream
	pool *pool
	body io.Reader // of a chunked body
}

// parse reads a whole header, without the empty line. It returns false for an interim answer.
func (a *answer) parse(b []byte, head bool) (final bool, err error) {
	line, lines, _ := bytes.Cut(b, crlf)
	version, line, _ := bytes.Cut(line, []byte(" "))
	old := string(version) == "HTTP/1.0"
	code, _, _ := bytes.Cut(line, []byte(" "))
	a.code, err = strconv.Atoi(string(code))
	if err != nil || len(code) != 3 || a.code < 100 || a.code > 599 || !isText(line) || !old && string(version) != "HTTP/1.1" {
		return false, errMalformedAnswer
	}
	if a.code < 200 {
		if a.code == 101 {
			return false, errMalformedAnswer // nobody asked for another protocol
		}
		return false, nil
	}
	if err := a.header.read(lines); err != nil {
		return false, err
	}
	if old {
		if a.chunked {
			return false, errAmbiguousBody
		}
		a.close = a.close || !a.keepAlive
	}
	a.line, a.body = line, nil
	switch {
	case head || a.code == 204 || a.code == 304:
		a.left = 0
	case a.length >= 0:
		a.left = a.length
	default:
		a.left = -1
	}
	return true, nil
}

// Read reads the body.
func (a *answer) Read(p []byte) (n int, err error) {
	switch {
	case a.left > 0:
		n, err = a.conn.read(p[:min(int64(len(p)), a.left)])
		a.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	case a.left == 0:
		return 0, io.EOF
	case !a.chunked:
		return a.conn.read(p)
	case a.body == nil:
		a.body = httputil.NewChunkedReader(readerFunc(a.conn.read))
	}
	return a.body.Read(p)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// release gives the connection back, or closes it when another request could not be told from the rest of this one.
func (a *answer) release() {
	if u := a.conn; a.left != 0 || a.close || u.from != u.to {
		_ = u.Close()
	} else {
		a.pool.put(u)
	}
	a.conn, a.body = nil, nil
}
