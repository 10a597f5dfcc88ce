package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
)

const (
	// stepTimeout bounds one round trip of a replica.
	stepTimeout = time.Second
	// missTimeout bounds a log step for one missed key: no read waits longer.
	missTimeout = 450 * time.Millisecond
	// retryPause is the minimum time between a failed request and the next one, so that a Redis that is down costs its
	// replicas nothing, and a miss fails at once.
	retryPause = 200 * time.Millisecond
	// lagTolerance is the time that a Redis replica may be behind what this replica has from another node, before the
	// difference counts as a rollback.
	lagTolerance = 5 * time.Second
	// maxSnapshots bounds the snapshots of one catch-up.
	maxSnapshots = 3
)

var errPaused = errors.New("the last request to Redis failed a moment ago")

// resync catches up because messages may be missing. No message is applied until it succeeds.
func (a *applier) resync(ctx context.Context, reason catchUpReason) {
	if reason == catchUpSubscribed {
		a.liveness.resubscribed, a.received = true, 0
	}
	a.synced = false
	if err := a.catchUp(ctx, reason); err != nil {
		a.log.Debug("catch-up failed", "reason", reason, "err", err)
	}
}

// catchUp reads the log from the watermark to its end, takes a snapshot when the log does not continue the watermark,
// and answers the waiting misses. A log step reads the values of missed keys from the same instant as the log, so that
// no answer is ahead of the watermark or overtaken by it.
func (a *applier) catchUp(ctx context.Context, reason catchUpReason) (err error) {
	defer func() {
		if err != nil {
			a.misses.fail(err)
			a.publish(protocol.Head{}, nil)
		}
	}()
	if a.paused() {
		return errPaused
	}
	if why := a.needsSnapshot(); why != noSnapshot {
		if err := a.takeSnapshot(ctx, why); err != nil {
			return err
		}
	}
	counted := false
	for snapshots := 0; ; {
		st, err := a.fetchStep(ctx, a.watermark)
		if err != nil {
			return err
		}
		if err := a.checkLag(&st); err != nil {
			return err
		}
		verdict := judge(&st, a.watermark, a.ahead)
		if !counted && (!reason.routine() || verdict != stepContinues || len(st.Entries) > 0) {
			a.metrics.catchups.WithLabelValues(reason.String()).Inc()
			counted = true
		}
		if verdict != stepContinues {
			if verdict != stepTrimmed {
				a.restoring = false // never serve a file of another history, even if the snapshot fails
			}
			if snapshots++; snapshots > maxSnapshots {
				return fmt.Errorf("the log does not continue from the snapshot (%s)", verdict)
			}
			if err := a.takeSnapshot(ctx, verdict.snapshotReason()); err != nil {
				return err
			}
			continue
		}
		to, end := a.applyStep(&st, a.watermark)
		a.watermark, a.synced = to, end
		if end {
			a.caughtUp()
		}
		a.publish(st.Head, nil)
		if !end {
			continue
		}
		a.misses.answer(&st)
		if a.liveness.resubscribed {
			a.liveness.exempt, a.liveness.resubscribed = to.Token(), false
		}
		if a.cautious {
			a.watermark, a.synced = a.fetchOneMissed(ctx, to)
			a.publish(protocol.Head{}, nil)
		}
		return nil
	}
}

// applyStep applies a log step to a store that is at w. It returns the head that the store has reached, and whether it
// is the end of the log: then the misses may be answered.
func (a *applier) applyStep(st *protocol.LogStep, w protocol.Head) (to protocol.Head, end bool) {
	to, end = reach(st, w)
	changes := a.changes(st.Values, to.Epoch)
	if end {
		changes = append(changes, a.fills(st, to.Epoch)...)
	}
	a.public.begun.Add(1)
	a.store.Apply(to.Epoch, changes)
	a.feed.AppendStep(w, st, to)
	a.ahead, a.part = st.Head, st.Part
	a.noteNewest(st.Head.Token())
	return to, end
}

// fetchStep fetches a log step after w, with the missed keys.
func (a *applier) fetchStep(ctx context.Context, w protocol.Head) (protocol.LogStep, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	limit, began := a.stepLimit.get(), a.now()
	q := protocol.Query{Watermark: w, Ahead: a.ahead, Part: a.part, Limit: limit}
	if !a.cautious {
		q.Missed = a.misses.keys(maxStepKeys)
	}
	st, err := a.source.fetchStep(ctx, q)
	a.noteResult(err)
	a.noteTime(began, &st)
	switch {
	case err != nil:
		a.stepLimit.shrink() // it may have been too large for the link
		a.cautious = a.cautious || len(q.Missed) > 0
	case st.Size >= limit && a.now().Sub(began) < stepTimeout/4:
		a.stepLimit.grow() // twice the size takes at most half of the timeout
	}
	return st, err
}

// fetchHead fetches only the head.
func (a *applier) fetchHead(ctx context.Context) (protocol.Head, error) {
	if a.paused() {
		return protocol.Head{}, errPaused
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	began := a.now()
	st, err := a.source.fetchStep(ctx, protocol.Query{Watermark: endOfLog, Limit: stepLeast})
	a.noteResult(err)
	a.noteTime(began, &st)
	return st.Head, err
}

// fetchOneMissed fetches one missed key, in a log step from at, the end of the log. It returns the head that the store
// has reached, and whether that is the end of the log. When it fails, only the reads of that key do.
func (a *applier) fetchOneMissed(ctx context.Context, at protocol.Head) (to protocol.Head, end bool) {
	keys := a.misses.keys(1)
	if len(keys) == 0 {
		return at, true
	}
	ctx, cancel := context.WithTimeout(ctx, missTimeout)
	defer cancel()
	began := a.now()
	st, err := a.source.fetchStep(ctx, protocol.Query{Watermark: at, Ahead: a.ahead, Missed: keys, Limit: stepLeast})
	if err != nil {
		var refused redis.Error // an error that Redis returned, for instance because the key's slot is being moved
		a.misses.refuse(keys[0], err, !errors.As(err, &refused))
		return at, true
	}
	if judge(&st, at, a.ahead) != stepContinues || a.checkLag(&st) != nil {
		return at, true // the next catch-up deals with it
	}
	to, end = a.applyStep(&st, at)
	if !end {
		for i := range st.Missed {
			st.Missed[i].Skipped = true
		}
	}
	a.misses.answer(&st)
	a.cautious = a.cautious && a.now().Sub(began) > missTimeout/4
	return to, end
}

// checkLag reports a Redis replica that is behind what the store holds of the same history: a snapshot of it would
// restore old values. A primary is never behind; when it seems so, it was rolled back.
func (a *applier) checkLag(st *protocol.LogStep) error {
	if !a.source.fromReplica() || st.Head.Epoch != a.newest.Epoch || st.Head.Version >= a.newest.Version {
		a.behindSince = time.Time{}
		return nil
	}
	if a.behindSince.IsZero() {
		a.behindSince = a.now()
	}
	if a.now().Sub(a.behindSince) >= lagTolerance {
		return nil
	}
	return fmt.Errorf("the Redis replica is at version %d, behind version %d, which this reader has from another node", st.Head.Version, a.newest.Version)
}

// paused reports whether the last request to Redis failed less than retryPause ago.
func (a *applier) paused() bool { return !a.failed.IsZero() && a.now().Sub(a.failed) < retryPause }

// noteTime observes Redis's clock in the reply to a log step that was requested at began.
func (a *applier) noteTime(began time.Time, st *protocol.LogStep) {
	if st.Micros != 0 {
		a.clock.Observe(began, a.now(), st.Micros)
	}
}

// noteResult stores the error of the last request to Redis, and logs when Redis becomes unreachable or reachable.
func (a *applier) noteResult(err error) {
	switch {
	case err == nil && !a.failed.IsZero():
		a.log.Info("Redis answers again")
	case err != nil && a.failed.IsZero():
		a.log.Warn("Redis is unreachable; serving from memory (reads may be stale)", "err", err)
	}
	a.failed, a.err = time.Time{}, err
	if err == nil {
		a.failingSince = time.Time{}
		return
	}
	a.failed = a.now()
	if a.failingSince.IsZero() {
		a.failingSince = a.failed
	}
}
