package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// Found is the state of one of several keys.
type Found struct {
	Entry   store.Entry
	Present bool
}

// ErrNotReached reports that the replica could not obtain what a Min requires.
var ErrNotReached = errors.New("the replica is behind")

var errMoving = errors.New("the posts did not have one version in time")

// GetMany returns the states of keys, all at one head, which includes what m requires. It answers from memory if it can,
// and otherwise from log steps. It blocks at most until ctx is done. It fails then, or with ErrNotReached.
func (r *Replica) GetMany(ctx context.Context, keys []string, m Min) (found []Found, at protocol.Head, err error) {
	if err := r.Reach(ctx, keys[0], m); err != nil {
		return nil, at, err
	}
	fetched := map[string]missed{}
	for {
		moved := r.public.gate.wait()
		p := r.public.Load()
		found, missing, ok := r.readAt(p, keys, fetched)
		switch {
		case ok && len(missing) == 0:
			return found, p.watermark, nil
		case ok:
			if err := r.fetchAll(ctx, missing, fetched); err != nil {
				return nil, at, fmt.Errorf("%w: %w", errUnavailable, err)
			}
			if ctx.Err() == nil {
				continue
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, at, fmt.Errorf("%w: %w", errUnavailable, errMoving)
		}
	}
}

// Reach waits until memory includes what m requires, or Redis has shown that the history of that is over. It reads key from
// Redis if it must. Reach blocks at most until ctx is done. It fails with ErrNotReached.
func (r *Replica) Reach(ctx context.Context, key string, m Min) error {
	if r.Reached(m) || r.WaitFor(ctx, m) {
		return nil
	}
	if _, _, err := r.Fetch(ctx, key, m); err != nil && !r.Reached(m) {
		return fmt.Errorf("%w: %w", ErrNotReached, err)
	}
	return nil
}

// readAt reads keys at the watermark of p, from memory and from answers at that head. It returns the keys that neither
// has. ok is false if the store is not, or no longer, at that watermark.
func (r *Replica) readAt(p *progress, keys []string, fetched map[string]missed) (found []Found, missing []string, ok bool) {
	if !p.whole {
		return nil, nil, false
	}
	found = make([]Found, len(keys))
	for i, key := range keys {
		e, result := r.Get([]byte(key))
		switch a, asked := fetched[key]; {
		case result == store.Hit:
			found[i] = Found{e, true}
		case result == store.Absent:
		case asked && a.head == p.watermark:
			found[i] = Found{a.entry, a.present}
		default:
			missing = append(missing, key)
		}
	}
	return found, missing, r.public.begun.Load() == p.begun
}

// fetchAll asks Redis for keys. One log step answers up to maxStepKeys of them.
func (r *Replica) fetchAll(ctx context.Context, keys []string, fetched map[string]missed) error {
	answers := make([]missed, len(keys))
	var asking sync.WaitGroup
	for i, key := range keys {
		asking.Go(func() { answers[i] = r.misses.ask(ctx, key) })
	}
	asking.Wait()
	for i, key := range keys {
		if answers[i].err != nil {
			return answers[i].err
		}
		fetched[key] = answers[i]
	}
	return nil
}
