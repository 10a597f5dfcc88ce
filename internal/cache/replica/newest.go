package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// newest asks the primary for its head, for reads that must include every write that was acknowledged before them. One
// request runs at a time and answers all reads that waited when it began. A read that arrives later waits for the next
// one: a write that was acknowledged in between may be missing in the running one. The zero value with ask is ready for use.
type newest struct {
	ask func(context.Context) (protocol.Head, error)

	mu      sync.Mutex // guards the rest
	waiting *headRequest
	running bool // a goroutine sends the requests
	failed  error
	until   time.Time // time until which reads get failed at once
}

// headRequest is a request that has not been sent yet, or that runs. head and err are set before done is closed.
type headRequest struct {
	done chan struct{}
	head protocol.Head
	err  error
}

// head returns a head that the primary had after the call began. It blocks at most until ctx is done, and fails at once
// for retryPause after a request has failed.
func (n *newest) head(ctx context.Context) (protocol.Head, error) {
	q, err := n.join()
	if err != nil {
		return protocol.Head{}, err
	}
	select {
	case <-q.done:
		return q.head, q.err
	case <-ctx.Done():
		return protocol.Head{}, ctx.Err()
	}
}

// join returns the next request.
func (n *newest) join() (*headRequest, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed != nil && time.Now().Before(n.until) {
		return nil, n.failed
	}
	if n.waiting == nil {
		n.waiting = &headRequest{done: make(chan struct{})}
	}
	if !n.running {
		n.running = true
		go n.run()
	}
	return n.waiting, nil
}

// run sends requests, one after the other, until no read waits.
func (n *newest) run() {
	for q := n.next(nil); q != nil; q = n.next(q.err) {
		ctx, cancel := context.WithTimeout(context.Background(), missTimeout)
		q.head, q.err = n.ask(ctx)
		cancel()
		close(q.done)
	}
}

// next returns the request that is to be sent now, or nil if no read waits. err is the error of the last one.
func (n *newest) next(err error) *headRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed = err; err != nil {
		n.until = time.Now().Add(retryPause)
	}
	q := n.waiting
	n.waiting, n.running = nil, q != nil
	return q
}

var errRolledBack = errors.New("a rollback of Redis")

// askNewest asks the primary for its head. It fails if Redis was rolled back behind what memory holds: a point before the
// rollback may be in both histories, but memory is not in the one that goes on.
func (r *Replica) askNewest(ctx context.Context) (protocol.Head, error) {
	w := r.public.Load().watermark
	st, err := r.source.fetchNewest(ctx, protocol.Query{Watermark: endOfLog, Limit: stepLeast})
	if err == nil && st.Head.Epoch == w.Epoch && st.Head.Version < w.Version {
		err = errRolledBack
	}
	return st.Head, err
}
