package gateway

import (
	"bytes"
	"context"
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
	idleConnsPerNode  = 320              // the same as in APISIX
	idleTimeout       = 60 * time.Second // shorter than the readers' 75 s, so that the gateway closes idle connections first
	upstreamBuffer    = 4 << 10          // bytes; holds a whole answer with a small post
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
	idle    []*upstream // most recently used last
	retired bool        // put closes every connection
}

// pools is the state that the pools of all readers share.
type pools struct {
	timeout time.Duration // timeout of a connect and of the header of an answer
	most    int64         // maximum of idle
	idle    atomic.Int64  // idle connections in all pools
}

// upstream is a connection to a reader. One goroutine uses it at a time.
type upstream struct {
	net.Conn
	raw      syscall.RawConn
	step     func(fd uintptr) bool // sendAndReceive; stored because a method value allocates
	buf      []byte
	from, to int       // buf[from:to] has been received and not consumed
	deadline time.Time // deadline of the connection
	since    time.Time // when the connection became idle

	request []byte // request for sendAndReceive
	sent    int    // number of its bytes that were sent; -1 before sendAndReceive has run
	err     error  // error of sendAndReceive
}

// try sends x to n and reads the header of the answer.
func (n *node) try(x *exchange) error { return n.pool.do(x) }

// do sends a request and reads the header of the answer. If a kept connection turns out to be closed, do repeats the
// request on another connection.
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
		err := u.send(x, p.shared.timeout)
		if err == nil {
			x.answer.pool = p
			return nil
		}
		_ = u.Close()
		if !kept || u.to > 0 || isTimeout(err) {
			return err
		}
		p.drop() // the reader has probably closed the other idle connections too
	}
}

// send is do with the timeout that x needs.
func (u *upstream) send(x *exchange, timeout time.Duration) error {
	if x.stream == nil {
		return u.do(x, timeout)
	}
	u.deadline = time.Time{}
	stop := context.AfterFunc(x.stream, func() { _ = u.SetDeadline(past) })
	err := u.do(x, changesTimeout)
	u.deadline = time.Time{} // the next request sets its own
	stop()
	return err
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
	p.shared.idle.Add(1) // concurrent calls for different pools may exceed the maximum by one connection each
	p.idle = append(p.idle, u)
}

// expire closes the connections that became idle before t.
func (p *pool) expire(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && p.idle[n].since.Before(t) {
		_ = p.idle[n].Close()
		n++
	}
	p.shared.idle.Add(-int64(n))
	p.idle = slices.Delete(p.idle, 0, n)
}

// drop closes all idle connections.
func (p *pool) drop() { p.expire(time.Now().Add(time.Hour)) }

// retire closes all idle connections and makes put close the others as they are released.
func (p *pool) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.drop()
}

// do sends a request and reads the header of the answer.
func (u *upstream) do(x *exchange, timeout time.Duration) error {
	// Setting a deadline for every request would modify a runtime timer each time. Instead one deadline covers the
	// requests of an eighth of the timeout, so a timeout is at most that much late.
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

// sendAndReceive runs inside RawConn.Read, which has reset the readiness state of the poller, so that anything that arrives
// from now on wakes the goroutine. Before it sends the request it reads once: on an idle connection only EOF or stray bytes
// can be read, and either makes the connection useless. Conn.Read would try to read right after
// Conn.Write anyway, before the response is there. So the check is free, and no request is sent on a connection that has been closed.
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

// limitBody sets the deadline for the rest of the body, if any.
func (u *upstream) limitBody(x *exchange) error {
	if x.answer.left >= 0 && x.answer.left <= int64(u.to-u.from) {
		return nil
	}
	u.deadline = time.Time{} // the next request sets its own
	return u.SetDeadline(x.start.Add(requestTimeout))
}

// read reads the bytes that follow a header, first those that were received together with it.
func (u *upstream) read(p []byte) (int, error) {
	if u.from < u.to {
		n := copy(p, u.buf[u.from:u.to])
		u.from += n
		return n, nil
	}
	return u.Conn.Read(p)
}

// answer is the answer of a reader. Its slices are valid until release.
type answer struct {
	header
	code int
	line []byte // status code and reason phrase
	left int64  // unread bytes of the body; -1 if the length is unknown

	conn *upstream
	pool *pool
	body io.Reader // decoder of a chunked body; nil until the first Read
}

// parse parses a header without the empty line at its end. It returns false for an interim (1xx) answer.
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
			return false, errMalformedAnswer // the gateway never asks for an upgrade
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

// Read implements io.Reader for the body.
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

// release returns the connection to its pool. It closes the connection if the reader does, or if what follows could be
// mistaken for the next answer: an unread rest of the body, a trailer, or stray bytes.
func (a *answer) release() {
	if u := a.conn; a.left != 0 || a.close || u.from != u.to {
		_ = u.Close()
	} else {
		a.pool.put(u)
	}
	a.conn, a.body = nil, nil
}
