package feed

import (
	"context"
	"runtime"
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
		for at := 0; p.wake(at); at++ {
			// The follower that has just become runnable goes first, then goroutines of reads that wait, then the next follower.
			runtime.Gosched()
			if at%wakesPerSlice < wakesPerSlice-1 {
				continue
			}
			select {
			case <-time.After(slicePause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// wake wakes the follower at an index, and reports whether there is one.
func (p *pump) wake(at int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at >= len(p.followers) {
		return false
	}
	p.followers[at].signal()
	return true
}
