package httpkit

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Listener can be closed without resetting the connections in its accept queue. Close alone would reset them,
// although their clients are connected and may have sent a request.
type Listener struct {
	net.Listener
	draining atomic.Bool
	once     sync.Once
	closed   chan struct{} // closed by Close
}

const (
	// handshakeTime is the time for which Drain waits for handshakes that have begun.
	handshakeTime = 100 * time.Millisecond
	// maxDrainTime bounds Drain, because clients that can still connect may keep the queue filled.
	maxDrainTime = time.Second
)

// NewListener returns a Listener that accepts the connections of ln.
func NewListener(ln net.Listener) *Listener {
	return &Listener{Listener: ln, closed: make(chan struct{})}
}

// queue is a listener with an accept queue in the kernel.
type queue interface {
	syscall.Conn
	SetDeadline(time.Time) error
}

// Accept returns the next connection. After Drain it returns those that are left in the queue, then closes l.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if !l.draining.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		// Accept checks the deadline before the queue, so the queue may hold connections that arrived in time.
		if q := l.Listener.(queue); pending(q) {
			_ = q.SetDeadline(time.Now().Add(time.Millisecond))
			continue
		}
		_ = l.Close()
		return nil, net.ErrClosed
	}
}

// Drain waits until the caller of Accept has received all connections in the queue, and closes l. On Linux it first
// makes the kernel ignore clients that begin to connect, so no connection is reset if its handshake takes less than
// handshakeTime. Otherwise connections are reset that are established between the last look at the queue and Close.
func (l *Listener) Drain() {
	defer l.Close()
	q, ok := l.Listener.(queue)
	if !ok {
		return
	}
	var wait time.Duration
	if refuseHandshakes(q) {
		wait = handshakeTime
	}
	l.draining.Store(true)
	_ = q.SetDeadline(time.Now().Add(wait))
	bound := time.NewTimer(maxDrainTime)
	defer bound.Stop()
	select {
	case <-l.closed:
	case <-bound.C:
	}
}

// Close closes the listener and resets the connections in its queue. Further calls have no effect.
func (l *Listener) Close() (err error) {
	l.once.Do(func() {
		err = l.Listener.Close()
		close(l.closed)
	})
	return err
}

func control(q queue, f func(fd int)) {
	if raw, err := q.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
