package replica

import (
	"context"
	"sync"
)

// turns gives the applier, and with it the store, to one goroutine at a time: to the goroutine of run, or to the
// subscription for a message that needs no request to Redis. The applier is reachable only through take and try. A
// turn of run may last as long as a snapshot; one of the subscription never waits for Redis.
type turns struct {
	inbox  *inbox              // messages that wait for the next turn of run
	misses *missQueue          // reads that wait for it
	calls  chan func(*applier) // functions for a turn of run, from callers that may give up; never closed

	mu      sync.Mutex // held during a turn
	applier *applier   // guarded by mu
}

func newTurns(a *applier) *turns {
	return &turns{inbox: a.inbox.inbox, misses: a.misses.missQueue, calls: make(chan func(*applier)), applier: a}
}

// take runs f in a turn. It blocks until the running turn has ended.
func (t *turns) take(f func(*applier)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(t.applier)
}

// try runs f in a turn and returns its result, or returns false at once during the turn of another goroutine.
func (t *turns) try(f func(*applier) bool) bool {
	if !t.mu.TryLock() {
		return false
	}
	defer t.mu.Unlock()
	return f(t.applier)
}

// call runs f in a turn of run, unless ctx is done before: a turn may last as long as a snapshot. It blocks until f has
// returned, and must not be called in a turn.
func (t *turns) call(ctx context.Context, f func(*applier)) error {
	done := make(chan struct{})
	select {
	case t.calls <- func(a *applier) { defer close(done); f(a) }:
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

// receive takes a message of the channel. It applies the message at once where that is possible, which saves the
// switch to another goroutine; otherwise the message waits in the inbox. Calls are in the order of the channel. receive
// never waits for Redis, and returns the number of messages that were dropped because the inbox was full.
func (t *turns) receive(message string) (dropped int) {
	if t.try(func(a *applier) bool { return a.applyNow(message) }) {
		return 0
	}
	return t.inbox.push(message)
}
