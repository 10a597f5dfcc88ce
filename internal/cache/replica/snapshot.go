package replica

import (
	"context"
	"errors"
	"fmt"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"log/slog"
	"math"
	"time"
)

// How long pages are read without a look at the log: the time that writes may take to show while a
// reload runs.
const (
	followPause = 20 * time.Millisecond
	firstPause  = 200 * time.Millisecond // nobody waits for the writes before the reader is ready
)

// progressEvery is how often a load logs how far it is.
const progressEvery = time.Second

// takeSnapshot loads the whole set, and leaves the watermark at the end of the log.
//
// The pages are read while the log is followed: first the head is read, from there on the log
// tells of every change, so that a key that is written, deleted or moved under the SCAN is not
// lost. Pages and steps are both states at an instant, and this goroutine applies them in the order
// of their instants: a page is never under way while a step is taken. So a value can only be
// replaced by one that is newer, whatever their versions say.
func (a *applier) takeSnapshot(ctx context.Context, reason string) error {
	a.metrics.snapshots.WithLabelValues(reason).Inc()
	began := a.now()
	// The repeated look at an empty Redis takes nothing away from what is known meanwhile.
	quiet := reason == reasonNoHistory && a.synced && !a.noHistory()
	progress := SnapshotProgress{Reason: reason, Began: began}
	if !quiet {
		a.synced = false
		a.publish(protocol.Head{}, progress.copy())
	}
	level := slog.LevelInfo
	if reason == reasonNoHistory || a.snapshotFailing {
		level = slog.LevelDebug // it is repeated every few seconds, or more often
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
			a.failedSnapshots.Log(a.log.Warn, a.failed, "the snapshot failed and will be repeated", "reason", reason, "err", err)
			return fmt.Errorf("load (%s): %w", reason, err)
		}
		gone := a.store.FinishSnapshot()
		dropped += gone
		// What did not fit beside entries that are gone now may fit without them.
		if gone == 0 || !a.store.Overflowed() || round == 2 {
			break
		}
	}
	a.watermark, a.synced, a.loaded, a.snapshotFailing, a.dropped = at, true, true, false, dropped
	a.exemptUpTo(at)
	a.snapshotAt, a.snapshotTook = a.now(), a.now().Sub(began)
	if a.noHistory() {
		a.store.MarkIncomplete() // a missing key may have been written since
		if reason != reasonNoHistory {
			a.log.Error("Redis has values but no epoch, which somebody has deleted: deletes cannot be noticed. Reads are served from memory and may be stale until the next write begins a new history")
		}
	}
	a.publish(at, nil)
	if dropped > 0 {
		a.metrics.removed.Add(float64(dropped))
		a.log.Warn("dropped entries that Redis no longer has", "entries", dropped, "reason", reason)
	}
	a.log.Log(ctx, level, "snapshot complete", "reason", reason, "entries", a.store.Entries(), "version", at.Version,
		"holds_all", a.store.Complete(), "took", a.snapshotTook.Round(time.Millisecond))
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
	// Only now: while no server has the whole set, absent keys are answered from memory as before.
	a.store.BeginSnapshot(quiet)

	a.ahead = protocol.Head{} // nothing that the store holds now will be there after the load
	st, err := a.fetchStep(ctx, endOfLog)
	if err != nil {
		return at, err
	}
	if err := a.checkLag(&st); err != nil {
		return at, err
	}
	at, a.ahead, a.newest, a.part, a.received = st.Head, st.Head, st.Head.Token(), protocol.Part{}, 0
	a.inbox.track(at.Epoch)
	a.exemptUpTo(at)
	a.store.Apply(at.Epoch, a.fills(&st, at.Epoch))
	a.misses.answer(&st)

	pause := followPause
	if !a.loaded {
		pause = firstPause
	}
	followed, told := a.now(), a.now()
	due := false
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
		if now := a.now(); now.Sub(told) >= progressEvery {
			left, _ := progress.Left(now)
			a.log.Info("loading", "count", progress.Loaded, "total", progress.Total, "left", left.Round(100*time.Millisecond))
			told = now
		}
		if due && got.quiet {
			if at, err = a.followLog(ctx, at); err != nil {
				return at, err
			}
			followed, due = a.now(), false
		}
		more = got.more
	}
	closing, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	// The log must lead through the head of the server that the pages came from, or what they told,
	// absences included, is not what the log knows of.
	if a.ahead, err = pages.finish(closing); err != nil {
		return at, err
	}
	if a.ahead.Epoch != at.Epoch || a.ahead.Version < at.Version || a.ahead.Version == at.Version && a.ahead != at {
		return at, errors.New("the snapshot was read from a server whose head is not in the log")
	}
	return a.followLog(ctx, at)
}

// endOfLog is a watermark after which no log has entries: a step from there tells the head alone.
var endOfLog = protocol.Head{Version: math.MaxUint64}

// pageChanges returns the changes of a page's values.
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

// followLog takes the log from at to its end, and answers misses there.
func (a *applier) followLog(ctx context.Context, at protocol.Head) (protocol.Head, error) {
	for {
		a.inbox.discard()
		st, err := a.fetchStep(ctx, at)
		if err != nil {
			return at, err
		}
		if why := judge(&st, at, a.ahead); why != "" {
			return at, fmt.Errorf("the log broke off during the snapshot (%s)", why)
		}
		var end bool
		if at, end = a.applyStep(&st, at); end {
			a.misses.answer(&st)
			if a.cautious {
				at = a.fetchOneMissed(ctx, at)
			}
			return at, nil
		}
	}
}
