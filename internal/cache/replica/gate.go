package replica

import "sync"

// gate wakes all waiters when progress changes.
type gate struct {
	mu sync.Mutex    // guards ch
	ch chan struct{} // nil while nothing waits; closed by open
}

// wait returns a channel that the next open closes. Read the progress after the call, so that no change is missed.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

// open wakes all waiters.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch != nil {
		close(g.ch)
		g.ch = nil
	}
}
