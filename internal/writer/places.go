package writer

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// An import that has been waited for longer than slowAfter for its last paceBytes gives up its place when another
// import needs one. A client that sends a byte now and then holds a place only as long as nobody else wants it.
const (
	slowAfter = 5 * time.Second
	paceBytes = 64 << 10
)

// interruptAfter is how long a client may be silent once its import has stopped.
const interruptAfter = time.Second

// places are the imports that run, maxImports at most.
type places struct {
	taken chan struct{} // has a token for each

	mu      sync.Mutex // guards running
	running map[*transfer]bool
}

func newPlaces() places {
	return places{taken: make(chan struct{}, maxImports), running: make(map[*transfer]bool)}
}

// enter takes a place for t, and reports whether there is one. While all are taken, it stops the slowest import if
// that is too slow, and waits for its place until timeout.
func (p *places) enter(t *transfer, timeout time.Duration) bool {
	select {
	case p.taken <- struct{}{}:
	default:
		if !p.stopSlowest() {
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

// stopSlowest reports whether there was an import that is too slow.
func (p *places) stopSlowest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var slowest *transfer
	most, now := slowAfter, time.Now()
	for t := range p.running {
		if waited := t.in.waitedFor(now); waited > most {
			slowest, most = t, waited
		}
	}
	if slowest == nil {
		return false
	}
	delete(p.running, slowest) // nobody else waits for its place
	slowest.cancel(errSlow)
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

	mu     sync.Mutex    // guards what follows, and orders the deadlines: that of interrupt comes last
	since  time.Time     // beginning of the read that is under way, else zero
	waited time.Duration // for the last bytes, the read under way not included
	bytes  int           // received in waited, less than paceBytes
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.waiting()
	defer p.resumed()
	if err := p.begin(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.end(n)
	return n, err
}

func (p *patientReader) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil {
		return err
	}
	p.since = time.Now()
	return p.conn.SetReadDeadline(p.since.Add(stallTimeout))
}

func (p *patientReader) end(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited += time.Since(p.since)
	p.since = time.Time{}
	if p.bytes += n; p.bytes >= paceBytes {
		p.waited, p.bytes = 0, 0
	}
}

// waitedFor returns how long the client has been waited for since its last paceBytes were complete. Time in which
// Redis was waited for does not count.
func (p *patientReader) waitedFor(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return p.waited
	}
	return p.waited + now.Sub(p.since)
}

// interrupt ends the reading once ctx is done. It does not break off a read of a client that is sending: after a
// timeout a chunked body can not be read any further, and linger could not drop the rest of it.
func (p *patientReader) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.conn.SetReadDeadline(time.Now().Add(interruptAfter)) // fails on a closed connection, which needs none
}
