package feed

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// pump wakes the followers in turn, a few at a time. If all of them woke at once, reads would wait behind thousands of
// goroutines. A follower that waits for its turn gets more events with one write.
type pump struct {
	moved chan struct{} // has a token when there are new events; never closed
	count atomic.Int64  // length of followers

	mu        sync.Mutex // guards followers and their indexes
	followers []*Follower
}

// The pace of a round: with 5,000 followers, each one wakes five times a second at most.
const (
	wakesPerSlice = 25
	slicePause    = time.Millisecond
)

func newPump() pump { return pump{moved: make(chan struct{}, 1)} }

// signal starts a round. Without followers it does not wake the pump, because that would cost each update of a reader as
// much as the update itself. A follower that is added meanwhile finds the events when it calls Take for the first time.
func (p *pump) signal() {
	if p.count.Load() == 0 {
		return
	}
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

func (fo *Follower) signal() {
	select {
	case fo.wake <- struct{}{}:
	default:
	}
}

func (p *pump) add(fo *Follower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fo.index = len(p.followers)
	p.followers = append(p.followers, fo)
	p.count.Store(int64(len(p.followers)))
}

func (p *pump) remove(fo *Follower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.followers) - 1
	moved := p.followers[last]
	p.followers[fo.index], moved.index = moved, fo.index
	moved.signal() // the running round may have passed its new index
	p.followers[last] = nil
	p.followers = p.followers[:last]
	p.count.Store(int64(last))
}

// run wakes all followers once for each signal, until ctx is done.
func (p *pump) run(ctx context.Context) {
	for {
		select {
		case <-p.moved:
		case <-ctx.Done():
			return
		}
		for at := 0; ; at += wakesPerSlice {
			if !p.wakeSlice(at) {
				break
			}
			select {
			case <-time.After(slicePause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// wakeSlice wakes the followers from index at on, and reports whether there are more.
func (p *pump) wakeSlice(at int) (more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fo := range p.followers[min(at, len(p.followers)):min(at+wakesPerSlice, len(p.followers))] {
		fo.signal()
	}
	return at+wakesPerSlice < len(p.followers)
}
