// Package rawio reads and writes sockets without the scheduler's bookkeeping for system calls. A process that mostly
// waits then handles a message with one thread instead of waking two more.
package rawio

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// Conn is a net.Conn whose Read and Write bypass the bookkeeping; waiting, deadlines and Close are those of the net
// package.
type Conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out half
}

// half is one direction of a Conn.
type half struct {
	mu   sync.Mutex // held by the transfer in progress; guards the rest
	step func(fd uintptr) (done bool)
	b    []byte // what is left to transfer
	n    int    // number of bytes that were transferred
	err  error
	busy int // number of transfers since the last one that waited
}

// New returns a Conn for a TCP or Unix connection, and any other connection unchanged. On Windows it leaves all unchanged.
func New(nc net.Conn) net.Conn {
	if runtime.GOOS == "windows" {
		return nc
	}
	var raw syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
	case *net.UnixConn:
		raw, err = nc.SyscallConn()
	default:
		return nc
	}
	if err != nil {
		return nc
	}
	c := &Conn{Conn: nc, raw: raw}
	c.in.step, c.out.step = c.in.read, c.out.write // once, so that a transfer allocates nothing
	return c
}

// yieldEvery is the number of transfers without a wait after which the goroutine yields. The monitor thread, which would
// preempt it, may be asleep.
const yieldEvery = 32

// Read implements net.Conn. It returns maxCall bytes at most.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.in.transfer(c.raw.Read, b)
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, c.opError("read", err)
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.out.transfer(c.raw.Write, b)
	return n, c.opError("write", err)
}

// opError returns err as the net package would.
func (c *Conn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	var inner *net.OpError // of a RawConn
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// transfer runs step when the socket is ready until it is done.
func (h *half) transfer(when func(func(fd uintptr) bool) error, b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy++; h.busy >= yieldEvery {
		h.busy = 0
		runtime.Gosched()
	}
	h.b, h.n, h.err = b, 0, nil
	err := when(h.step)
	h.b = nil
	if err == nil {
		err = h.err
	}
	return h.n, err
}

// maxCall bounds one system call, in bytes: the scheduler does not know that the thread is in the kernel, so a garbage
// collection would wait for it.
const maxCall = 64 << 10

func (h *half) read(fd uintptr) bool {
	for {
		n, err := Read(fd, h.b[:min(len(h.b), maxCall)])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			h.busy = 0
			return false
		case nil:
			h.n = n
		default:
			h.err = os.NewSyscallError("read", err)
		}
		return true
	}
}

func (h *half) write(fd uintptr) bool {
	for len(h.b) > 0 {
		n, err := Write(fd, h.b[:min(len(h.b), maxCall)])
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			h.busy = 0
			return false
		case nil:
			h.b, h.n = h.b[n:], h.n+n
		default:
			h.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// CloseWrite shuts down the writing side.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// SyscallConn lets go-redis check an idle connection before it uses it. It calls RawConn.Read with a function that peeks;
// for a socket that is open and has nothing to read, that Read peeks itself, without the bookkeeping, and does not call
// the function.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return peeking{c.raw}, nil }

type peeking struct{ syscall.RawConn }

func (p peeking) Read(f func(fd uintptr) bool) error {
	return p.RawConn.Read(func(fd uintptr) bool { return quiet(fd) || f(fd) })
}
