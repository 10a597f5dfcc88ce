package writer

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// defaultPatience is the idle time after which an import must give up its place to another. An import that keeps the
// writer busy may take as long as it needs. One that mostly waits for its client, at whatever rate the client sends,
// keeps its place only while no other import needs it.
const defaultPatience = 5 * time.Second

// interruptAfter is the read timeout once the import has stopped.
const interruptAfter = time.Second

// places limits the number of running imports to maxImports.
type places struct {
	taken    chan struct{} // holds a token for each place that is taken
	patience time.Duration // idle time after which an import must give up its place to another

	mu      sync.Mutex // guards running
	running map[*transfer]bool
}

func newPlaces(patience time.Duration) places {
	return places{taken: make(chan struct{}, maxImports), patience: patience, running: make(map[*transfer]bool)}
}

// enter takes a place for t and reports whether it got one. If all are taken, enter stops the import with the longest
// idle time, provided that it exceeds patience, and waits for its place for at most timeout.
func (p *places) enter(t *transfer, timeout time.Duration) bool {
	select {
	case p.taken <- struct{}{}:
	default:
		if !p.stopIdlest() {
			return false
		}
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		select {
		case p.taken <- struct{}{}:
		case <-timer.C:
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[t] = true
	return true
}

// stopIdlest stops the import with the longest idle time if that exceeds patience. It reports whether it stopped one.
func (p *places) stopIdlest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var idlest *transfer
	most := p.patience
	for t := range p.running {
		if idle := t.in.idleTime(); idle >= most {
			idlest, most = t, idle
		}
	}
	if idlest == nil {
		return false
	}
	delete(p.running, idlest) // its place is promised to the caller: no other import may wait for it
	idlest.cancel(errIdle)
	return true
}

// leave releases the place of t.
func (p *places) leave(t *transfer) {
	p.mu.Lock()
	delete(p.running, t)
	p.mu.Unlock()
	<-p.taken
}

// patientReader reads the body of an import and measures how long it waits for the client. A read fails after
// stallTimeout.
type patientReader struct {
	r       io.Reader
	ctx     context.Context
	conn    *http.ResponseController
	waiting func() // called before each read
	resumed func() // called after each read

	now func() time.Time

	mu    sync.Mutex    // guards the rest; also ensures that no read replaces the deadline set by interrupt
	since time.Time     // start of the current read, zero if there is none
	until time.Time     // end of the last read
	idle  time.Duration // idle time when since was last changed
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.waiting()
	defer p.resumed()
	if err := p.begin(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.end()
	return n, err
}

func (p *patientReader) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		return err
	}
	now := p.now()
	p.since, p.idle = now, p.idleAt(now)
	return p.conn.SetReadDeadline(time.Now().Add(stallTimeout))
}

func (p *patientReader) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.since, p.until, p.idle = time.Time{}, now, p.idleAt(now)
}

// idleTime returns the time spent waiting for the client minus the time spent on its lines. Work reduces the idle time
// to zero but not below, so it is not credited against later waits.
func (p *patientReader) idleTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idleAt(p.now())
}

// idleAt computes idleTime. The caller holds mu.
func (p *patientReader) idleAt(now time.Time) time.Duration {
	if p.since.IsZero() {
		return max(0, p.idle-now.Sub(p.until))
	}
	return p.idle + now.Sub(p.since)
}

// interrupt ends a read that waits for a silent client, once ctx is done. It gives the client interruptAfter to send
// something, because a chunked body cannot be read any further after a timeout, and linger could not discard the rest.
func (p *patientReader) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetReadDeadline(time.Now().Add(interruptAfter)) // fails only on a closed connection
}
