package writer

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// defaultPatience is by how much the waiting for a client may exceed the work on its lines before the import gives
// up its place to another. An import that keeps the writer busy may take as long as it needs; one that has the
// writer wait, at whatever rate its client sends, holds a place only as long as nobody else wants it.
const defaultPatience = 5 * time.Second

// interruptAfter is how long a client may be silent once its import has stopped.
const interruptAfter = time.Second

// places are the imports that run, maxImports at most.
type places struct {
	taken    chan struct{} // has a token for each
	patience time.Duration // idle time from which on an import gives up its place to another

	mu      sync.Mutex // guards running
	running map[*transfer]bool
}

func newPlaces(patience time.Duration) places {
	return places{taken: make(chan struct{}, maxImports), patience: patience, running: make(map[*transfer]bool)}
}

// enter takes a place for t, and reports whether there is one. While all are taken, it stops the import with the
// longest idle time if that is too long, and waits for its place until timeout.
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

// stopIdlest reports whether there was an import that is idle for too long.
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
	delete(p.running, idlest) // its place is promised: no other import may wait for it
	idlest.cancel(errIdle)
	return true
}

// leave gives the place of t back.
func (p *places) leave(t *transfer) {
	p.mu.Lock()
	delete(p.running, t)
	p.mu.Unlock()
	<-p.taken
}

// patientReader reads from the client as long as it sends something now and then.
type patientReader struct {
	r       io.Reader
	ctx     context.Context
	conn    *http.ResponseController
	waiting func() // called before each read
	resumed func() // called after it

	now func() time.Time

	mu    sync.Mutex    // guards what follows, and orders the deadlines: that of interrupt comes last
	since time.Time     // beginning of the read that is under way, else zero
	until time.Time     // end of the last read
	idle  time.Duration // idle time at the last change of since
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

// idleTime returns by how much the waiting for the client exceeds the rest of the time, in which its lines are
// parsed and written. Work makes up for earlier waiting, but not for waiting to come.
func (p *patientReader) idleTime() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idleAt(p.now())
}

// idleAt returns idleTime. The caller holds mu.
func (p *patientReader) idleAt(now time.Time) time.Duration {
	if p.since.IsZero() {
		return max(0, p.idle-now.Sub(p.until))
	}
	return p.idle + now.Sub(p.since)
}

// interrupt ends the reading once ctx is done. It does not time out the read of a client that is sending: after a
// timeout a chunked body cannot be read any further, and linger could not discard the rest of it.
func (p *patientReader) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetReadDeadline(time.Now().Add(interruptAfter)) // fails on a closed connection, which needs none
}
