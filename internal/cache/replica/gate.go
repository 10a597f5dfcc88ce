package replica

import "sync"

// gate wakes everybody who waits for progress.
type gate struct {
	mu sync.Mutex
	ch chan struct{} // nil while nobody waits; closed by open
}

// wait returns a channel that the next open closes. Look at the progress after the call.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch == nil {
		g.ch = make(chan struct{})
	}
	return g.ch
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ch != nil {
		close(g.ch)
		g.ch = nil
	}
}
