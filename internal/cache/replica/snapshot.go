package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// While a snapshot reads pages, it follows the log at least this often: the time that a write may take to become
// visible meanwhile.
const (
	followPause      = 20 * time.Millisecond
	firstFollowPause = 200 * time.Millisecond // no read is served before the first snapshot is complete
)

// progressEvery is the time between two log lines about the progress of a snapshot.
const progressEvery = time.Second

// noHistoryPause is the minimum time between two snapshots of a Redis without a history.
const noHistoryPause = 5 * time.Second

// endOfLog is a watermark after every entry of a log: a log step from there returns only the head.
var endOfLog = protocol.Head{Version: math.MaxUint64}

// needsSnapshot returns why a snapshot is needed before catch-up can continue. A snapshot that failed may have left
// entries of another history, even if Redis has returned to this one since. Without an epoch nothing shows deletes, so
// the snapshot is repeated until a write begins a history.
func (a *applier) needsSnapshot() snapshotReason {
	switch {
	case !a.loaded, a.partial:
		return snapshotStart
	case a.requested != noSnapshot:
		return a.requested
	case a.store.InSnapshot() && !a.restoring:
		return snapshotResumed
	case a.watermark.Epoch == 0 && a.now().Sub(a.snapshotAt) >= max(noHistoryPause, 10*a.snapshotTook):
		return snapshotNoHistory
	}
	return noSnapshot
}

// takeSnapshot reads the whole data set into the store, and leaves the watermark at the end of the log.
//
// It reads the pages while it follows the log. It fetches the head first; from there the log shows every change, so
// that no key is lost that is written, deleted or moved during the SCAN. Pages and log steps are both states at an
// instant, and the applier applies them in the order of these instants, because no page is in flight during a log
// step. So a value is only ever replaced by a newer one, even if its version is lower, as after a rollback.
func (a *applier) takeSnapshot(ctx context.Context, reason snapshotReason) error {
	a.metrics.snapshots.WithLabelValues(reason.String()).Inc()
	began := a.now()
	// The repeated snapshot of an empty Redis does not change the status.
	quiet := reason == snapshotNoHistory && a.synced && !a.noHistory
	progress := SnapshotProgress{Reason: reason.String(), Began: began}
	if !quiet {
		a.synced = false
		a.publish(protocol.Head{}, progress.copy())
	}
	level := slog.LevelInfo
	if reason == snapshotNoHistory || a.snapshotFailing {
		level = slog.LevelDebug // repeated every few seconds, or more often
	}
	a.log.Log(ctx, level, "taking a snapshot", "reason", reason, "watermark", a.watermark)

	var at protocol.Head
	dropped := 0
	for round := 1; ; round++ {
		var err error
		progress.Loaded, progress.Began = 0, a.now()
		if at, err = a.readSnapshot(ctx, &progress, quiet); err != nil {
			a.failed, a.err = a.now(), err
			a.publish(protocol.Head{}, nil)
			a.snapshotFailing = true
			a.failedSnapshots.Log(a.log.Warn, a.failed, "the snapshot failed and will be repeated; until then reads may be stale, and a starting reader is not ready", "reason", reason, "err", err)
			return fmt.Errorf("take a snapshot (%s): %w", reason, err)
		}
		gone := a.store.FinishSnapshot()
		dropped += gone
		// Values that did not fit may fit in a second round, now that old entries have been dropped.
		if gone == 0 || !a.store.Overflowed() || round == 2 {
			break
		}
	}
	a.partial = false
	a.watermark, a.synced, a.loaded, a.snapshotFailing, a.dropped, a.requested = at, true, true, false, dropped, noSnapshot
	a.liveness.exemptUpTo(at, a.now())
	a.public.withheld.Store(false)
	a.snapshotAt, a.snapshotTook = a.now(), a.now().Sub(began)
	if a.noHistory = at.Epoch == 0 && a.store.Entries() > 0; a.noHistory {
		a.store.MarkIncomplete() // a missing key may have been written since
		if reason != snapshotNoHistory {
			a.log.Error("Redis has posts but no epoch: another client has deleted it. Deletes cannot be detected; serving from memory (reads may be stale) until the next write begins a new history")
		}
	}
	a.feed.Restart(at, at)
	a.publish(at, nil)
	if dropped > 0 {
		a.metrics.removed.Add(float64(dropped))
		a.log.Warn("dropped entries that Redis no longer has; reads of them return 404", "entries", dropped, "reason", reason)
	}
	a.log.Log(ctx, level, "snapshot complete", "reason", reason, "entries", a.store.Entries(), "version", at.Version,
		"holds_all", a.store.Complete(), "digest", hex(a.store.Digest()), "took", a.snapshotTook.Round(time.Millisecond))
	return nil
}

// readSnapshot fills the store and returns the head whose state it holds.
func (a *applier) readSnapshot(ctx context.Context, progress *SnapshotProgress, quiet bool) (at protocol.Head, err error) {
	opening, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	pages, err := a.source.open(opening)
	if err != nil {
		return at, err
	}
	defer pages.close()
	progress.Total = pages.total()
	// Only once a server has been found: until then, absences are answered from memory.
	a.public.begun.Add(1)
	a.store.BeginSnapshot(quiet)
	a.generation++
	a.restoring = false // the pages replace the entries of the file

	a.ahead = protocol.Head{} // the snapshot replaces everything that the store holds now
	st, err := a.fetchStep(ctx, endOfLog)
	if err != nil {
		return at, err
	}
	if err := a.checkLag(&st); err != nil {
		return at, err
	}
	at, a.ahead, a.newest, a.part, a.received = st.Head, st.Head, st.Head.Token(), protocol.Part{}, 0
	a.inbox.track(at.Epoch)
	a.liveness.exemptUpTo(at, a.now())
	a.store.Apply(at.Epoch, a.fills(&st, at.Epoch))
	a.misses.answer(&st)

	if at, err = a.readPages(ctx, pages, at, progress, quiet); err != nil {
		return at, err
	}
	closing, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	// The log must lead through the head of the server that the pages came from. Otherwise the pages, absences
	// included, are of another history than the log.
	if a.ahead, err = pages.finish(closing); err != nil {
		return at, err
	}
	if a.ahead.Epoch != at.Epoch || a.ahead.Version < at.Version || a.ahead.Version == at.Version && a.ahead != at {
		return at, errors.New("the snapshot was read from a server whose head is not in the log")
	}
	return a.followLog(ctx, at)
}

// readPages puts all pages into a store that is at a head, follows the log meanwhile, and returns the head that the
// store has reached.
func (a *applier) readPages(ctx context.Context, pages pages, at protocol.Head, progress *SnapshotProgress, quiet bool) (protocol.Head, error) {
	pause := followPause
	if !a.loaded {
		pause = firstFollowPause
	}
	followed, logged := a.now(), a.now()
	due := false // the log has to be followed as soon as no page is in flight
	for more := true; more; {
		due = due || a.now().Sub(followed) > pause || !a.misses.empty()
		got, err := pages.next(ctx, !due)
		if err != nil {
			return at, err
		}
		a.store.Put(at.Epoch, a.pageChanges(at.Epoch, got.values))
		progress.Loaded += int64(len(got.values))
		if !quiet {
			a.publish(protocol.Head{}, progress.copy())
		}
		if now := a.now(); now.Sub(logged) >= progressEvery {
			left, _ := progress.Left(now)
			a.log.Info("snapshot in progress", "loaded", progress.Loaded, "total", progress.Total, "left", left.Round(100*time.Millisecond))
			logged = now
		}
		if due && got.idle {
			if at, err = a.followLog(ctx, at); err != nil {
				return at, err
			}
			followed, due = a.now(), false
		}
		more = got.more
	}
	return at, nil
}

// pageChanges returns the changes that the values of a page require.
func (a *applier) pageChanges(epoch uint64, values []protocol.Value) []store.Change {
	changes := make([]store.Change, 0, len(values))
	for i := range values {
		if c := a.change(&values[i], epoch); c.Present {
			changes = append(changes, c)
			a.noteNewest(protocol.Token{Epoch: epoch, Version: c.Version})
		}
	}
	return changes
}

// followLog catches up from at to the end of the log during a snapshot, and answers misses there.
func (a *applier) followLog(ctx context.Context, at protocol.Head) (protocol.Head, error) {
	for {
		a.inbox.discard()
		st, err := a.fetchStep(ctx, at)
		if err != nil {
			return at, err
		}
		if verdict := judge(&st, at, a.ahead); verdict != stepContinues {
			return at, fmt.Errorf("the log does not continue during the snapshot (%s)", verdict)
		}
		var end bool
		if at, end = a.applyStep(&st, at); end {
			a.misses.answer(&st)
			if a.cautious {
				at, end = a.fetchOneMissed(ctx, at)
			}
			if end {
				return at, nil
			}
		}
	}
}
