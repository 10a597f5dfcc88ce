package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// Min is the least that the answer to a read must include. The zero value requires nothing.
type Min struct {
	// Heads are writes that the answer must include; the zero Head names none. Without a write id, a Head names a version:
	// it is ignored once its history is over, and cannot be told from the same version before a rollback. With one, it
	// names a write; if that is no longer in the history, the answer includes what Redis has now instead.
	Heads [2]protocol.Head
	// Latest requires every write that was acknowledged before the read arrived.
	Latest bool
}

// AtLeast requires the write that t names.
func AtLeast(t protocol.Token) Min {
	return Min{Heads: [2]protocol.Head{{Epoch: t.Epoch, Version: t.Version}}}
}

// Errors of reads that need Redis.
var (
	errUnavailable = errors.New("no answer from Redis")
	errBehind      = errors.New("the requested version has not arrived yet")
	errStopped     = errors.New("the replica has stopped")
)

// Reached reports whether memory is known to include what m requires. It does not block and does not ask Redis, so it
// never knows what the latest write is.
func (r *Replica) Reached(m Min) bool {
	return !m.Latest && r.reached(m.Heads[0]) && r.reached(m.Heads[1])
}

func (r *Replica) reached(h protocol.Head) bool {
	switch {
	case h == protocol.Head{}:
		return true
	case h.WriteID != 0:
		return r.includes(h)
	}
	return r.reachedVersion(h.Token())
}

// reachedVersion reports whether the replica has applied the write that t names. A token of another epoch has not been
// reached, because that history may have just begun, until a Fetch has shown that it is over.
func (r *Replica) reachedVersion(t protocol.Token) bool {
	p := r.public.Load()
	return p.loaded && (p.watermark.Reached(t) || r.over.has(t.Epoch, p.watermark.Epoch))
}

// includes reports whether memory holds the state at h or at a later point of the same history. The window of the feed has
// the points of the last minutes; it does not know older ones.
func (r *Replica) includes(h protocol.Head) bool {
	p := r.public.Load()
	// During a snapshot, the feed is in the new history and memory is not.
	return p.whole && r.feed.Has(h) && r.public.begun.Load() == p.begun
}

// channelWait is the time for which WaitFor waits for the channel before the caller asks Redis.
const channelWait = 100 * time.Millisecond

// WaitFor waits briefly until memory includes what m requires, and reports whether it does. It does not wait for a version
// of another epoch. For the latest write, and for writes that it does not find in memory, it asks the primary for its head
// once, together with all reads that wait at the moment. WaitFor blocks for at most channelWait, and not after ctx is done.
// After false, call Fetch.
//
// With a Redis replica as the source, WaitFor waits until ctx is done: the Redis replica may lack the write as well, and
// cannot show that the history of a version is over.
func (r *Replica) WaitFor(ctx context.Context, m Min) bool {
	if !r.source.fromReplica() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, channelWait)
		defer cancel()
	}
	for _, h := range m.Heads {
		if h.WriteID != 0 {
			m.Latest = m.Latest || !r.includes(h)
		} else if !r.waitForVersion(ctx, h.Token()) {
			return false
		}
	}
	return !m.Latest || r.waitForLatest(ctx)
}

func (r *Replica) waitForVersion(ctx context.Context, t protocol.Token) bool {
	for {
		moved := r.public.gate.wait()
		if r.reached(protocol.Head{Epoch: t.Epoch, Version: t.Version}) {
			return true
		}
		if !r.source.fromReplica() && r.public.Load().watermark.Epoch != t.Epoch {
			return false
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// waitForLatest waits until memory includes the head that the primary has now.
func (r *Replica) waitForLatest(ctx context.Context) bool {
	head, err := r.newest.head(ctx)
	for err == nil {
		moved := r.public.gate.wait()
		if r.includes(head) {
			return true
		}
		if w := r.public.Load().watermark; w.Epoch == head.Epoch && w.Version > head.Version {
			head, err = r.newest.head(ctx) // after a catch-up, the window does not have every point: try a later one
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// Fetch answers a read that memory could not, from the log step with which the replica catches up, so that the answer is
// exactly as new as memory. It includes what m requires, unless that is of a history that is over. Fetch blocks at most
// until ctx is done. It fails when Redis does not reply, does not have that write, or is a Redis replica and in another
// history, or not known to have the write.
func (r *Replica) Fetch(ctx context.Context, key string, m Min) (e store.Entry, present bool, err error) {
	r.metrics.misses.Inc()
	a := r.misses.ask(ctx, key)
	if a.err != nil {
		err = fmt.Errorf("%w: %w", errUnavailable, a.err)
	} else {
		err = r.checkAnswer(a.head, m)
	}
	r.metrics.fallbacks[fallbackOf(a.present, err)].Inc()
	return a.entry, a.present, err
}

// checkAnswer reports an answer of Redis at a head that may not include what m requires. An answer of the primary includes
// every write of the history that goes on, because it was asked after the read arrived.
func (r *Replica) checkAnswer(at protocol.Head, m Min) error {
	for _, h := range m.Heads {
		switch min := h.Token(); {
		case h.WriteID != 0:
			m.Latest = m.Latest || !r.includes(h)
		case at.Reached(min):
		case at.Epoch == min.Epoch:
			return fmt.Errorf("%w: Redis has version %d", errBehind, at.Version)
		case r.source.fromReplica():
			return fmt.Errorf("%w: the Redis replica is in another history", errBehind)
		default:
			r.over.add(min.Epoch, at.Epoch)
		}
	}
	if m.Latest && r.source.fromReplica() {
		return fmt.Errorf("%w: the Redis replica may be behind its primary", errBehind)
	}
	return nil
}

func fallbackOf(present bool, err error) fallbackResult {
	switch {
	case err != nil:
		return fallbackError
	case present:
		return fallbackFound
	}
	return fallbackAbsent
}
