package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"
)

// applier owns the state of a replica. All its methods run on one goroutine, or one after the
// other in the simulator; everyone else reads what it publishes.
type applier struct {
	source  source
	store   *store
	inbox   *inbox
	misses  *missQueue
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	// watermark is the history up to here: every write up to it is in the store. While synced, the
	// store holds exactly the watermark's state. While not, single values may be newer, and no
	// message may be applied until a step has reached the end of the log.
	watermark Head
	synced    bool
	loaded    bool // the whole set has been loaded once

	// ahead is the newest write of which the store may hold the value, beyond the watermark while a
	// catch-up or a load is half done. When the log does not have it any more, Redis was rolled
	// back since, and the store may hold what never happened.
	ahead Head

	failed time.Time // of the last step that failed, zero after one that did not

	// For the check that the subscription is alive: what the log had at one probe, known, must have
	// been heard on the channel by the next one, unless it is from before the subscription or came
	// with a load: excused.
	known, excused Token
	resubscribed   bool // no catch-up has ended since

	// foreign holds epochs that were on the channel and turned out not to be ours: Pub/Sub knows no
	// database numbers, and another stack may use the same channel. Should one become ours, the
	// probe tells.
	foreign map[uint64]bool

	probed uint64 // version of the watermark at the last probe
	heard  commit // that hear looks at

	public atomic.Pointer[progress]
	gate   gate
}

// progress is what the applier lets others see.
type progress struct {
	watermark Head
	newest    Head
	synced    bool
	loaded    bool
	contact   time.Time // when the replica last knew that it had every write
	snapshot  *SnapshotProgress
}

// SnapshotProgress says how far a load of the whole set is.
type SnapshotProgress struct {
	Reason string
	Loaded int64
	Total  int64 // an estimate: Redis counts other keys too
	Began  time.Time
}

// Left estimates how long the load still takes; it reports false while there is nothing to go by.
func (p *SnapshotProgress) Left(now time.Time) (left time.Duration, ok bool) {
	if p.Loaded == 0 {
		return 0, false
	}
	perValue := now.Sub(p.Began).Seconds() / float64(p.Loaded)
	return time.Duration(perValue * float64(max(p.Total-p.Loaded, 0)) * float64(time.Second)), true
}

// copy returns progress as it is now, to be read by others.
func (p *SnapshotProgress) copy() *SnapshotProgress {
	c := *p
	return &c
}

func newApplier(src source, st *store, in *inbox, misses *missQueue, log *slog.Logger, m *metrics) *applier {
	a := &applier{source: src, store: st, inbox: in, misses: misses, log: log, metrics: m, now: time.Now, foreign: make(map[uint64]bool)}
	a.public.Store(&progress{})
	return a
}

// publish makes the watermark visible and wakes who waits for it. newest is the head that Redis
// last reported, or the zero Head for none.
func (a *applier) publish(newest Head, snapshot *SnapshotProgress) {
	last := a.public.Load()
	p := &progress{
		watermark: a.watermark, newest: newest, synced: a.synced && a.failed.IsZero(), loaded: a.loaded,
		contact: last.contact, snapshot: snapshot,
	}
	if newest == (Head{}) {
		p.newest = last.newest
	}
	if p.synced && (newest.Version > 0 || newest == a.watermark) {
		p.contact = a.now()
	}
	if p.synced && (p.newest.Epoch != a.watermark.Epoch || p.newest.Version < a.watermark.Version) {
		p.newest = a.watermark
	}
	a.public.Store(p)
	a.gate.open()
}

// hear applies the messages of the channel that continue the watermark, and catches up for the
// rest.
func (a *applier) hear(ctx context.Context, messages []string) {
	batch := newBatch(len(messages))
	var published []time.Time
	commits := 0
	flush := func(to Head) {
		a.store.apply(to.Epoch, batch.changes)
		a.watermark = to
		a.publish(Head{}, nil)
		now := a.now()
		for _, t := range published {
			a.metrics.propagation.Observe(now.Sub(t).Seconds())
		}
		a.metrics.messages.WithLabelValues("applied").Add(float64(commits))
		batch.reset()
		published, commits = published[:0], 0
	}

	at := a.watermark
	for _, message := range messages {
		if err := a.heard.decode(message); err != nil {
			// If it was one of ours that was damaged, the next message shows the gap.
			a.metrics.messages.WithLabelValues("invalid").Inc()
			a.log.Warn("message ignored", "err", err)
			continue
		}
		c := &a.heard
		switch verdict := a.weigh(c, at); verdict {
		case "applied":
			for i := range c.records {
				r := &c.records[i]
				batch.add(change{key: r.key, value: r.value, version: c.version(i), present: r.op == Set})
				published = append(published, r.published)
			}
			at = c.head
			commits++
		case "gap":
			a.metrics.messages.WithLabelValues(verdict).Inc()
			if !a.synced {
				break // a step brings it
			}
			if len(published) > 0 {
				flush(at)
			}
			a.doubt(ctx, verdict)
			at = a.watermark
			if a.synced && c.head.Epoch != at.Epoch {
				if len(a.foreign) == inboxEpochs {
					clear(a.foreign)
				}
				a.foreign[c.head.Epoch] = true
			}
		default:
			a.metrics.messages.WithLabelValues(verdict).Inc()
		}
	}
	if len(published) > 0 {
		flush(at)
	}
	clear(a.heard.records) // or it would keep the last message alive
}

// weigh says what is to be done with a commit that was heard when everything up to at is known.
func (a *applier) weigh(c *commit, at Head) (verdict string) {
	switch {
	case c.head.Epoch != at.Epoch && a.foreign[c.head.Epoch],
		c.head.Epoch == at.Epoch && c.head.Version <= at.Version:
		return "old"
	case a.synced && c.head.Epoch == at.Epoch && c.version(0) == at.Version+1 && c.previous == at.WriteID:
		return "applied"
	}
	return "gap"
}

// Failed steps are not repeated sooner than this, so that a Redis that is away costs its replicas
// nothing, and a miss fails at once.
const retryPause = 200 * time.Millisecond

var errPaused = errors.New("no answer from Redis a moment ago")

// doubt settles whether the watermark is the head of Redis.
func (a *applier) doubt(ctx context.Context, reason string) {
	if reason == "subscribed" {
		a.resubscribed = true
	}
	a.synced = false
	if err := a.catchUp(ctx, reason); err != nil {
		a.log.Debug("catch-up failed", "reason", reason, "err", err)
	}
}

// probe looks whether the watermark is still the head. It reports a subscription that did not
// tell, since the last probe, of what the log already had then: a link can die without a word.
func (a *applier) probe(ctx context.Context) (silent bool) {
	known := a.known
	heard := a.inbox.newest(known.Epoch)
	if a.excused.Epoch == known.Epoch {
		heard = max(heard, a.excused.Version)
	}
	silent = heard < known.Version && !a.resubscribed
	moving := a.watermark.Version > a.probed
	a.probed = a.watermark.Version
	head, err := a.look(ctx)
	if err == nil && !(a.synced && moving && head.Epoch == a.watermark.Epoch && head.Version > a.watermark.Version) {
		// Else the channel is at work: it need not be overtaken, only watched.
		err = a.catchUp(ctx, "probe")
		head = a.watermark
	}
	if err != nil {
		a.publish(Head{}, nil)
		a.log.Debug("probe failed", "err", err)
		return false
	}
	a.publish(head, nil)
	a.known = head.token()
	return silent
}

// look asks for the head alone.
func (a *applier) look(ctx context.Context) (Head, error) {
	if !a.failed.IsZero() && a.now().Sub(a.failed) < retryPause {
		return Head{}, errPaused
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	st, err := a.source.step(ctx, endOfLog, Head{}, nil)
	a.note(err)
	return st.head, err
}

// note remembers whether the last question to Redis was answered, and logs when that changes.
func (a *applier) note(err error) {
	switch {
	case err == nil && !a.failed.IsZero():
		a.log.Info("Redis answers again")
	case err != nil && a.failed.IsZero():
		a.log.Warn("Redis cannot be asked; memory is served as it is", "err", err)
	}
	a.failed = time.Time{}
	if err != nil {
		a.failed = a.now()
	}
}

// maxReloads bounds the loads of one catch-up.
const maxReloads = 3

// catchUp steps through the log until its end, loads everything where the log cannot tell, and
// answers the misses that wait. The values of missed keys are read in the same instant as the log,
// so that no answer is ever ahead of the watermark or overtaken by it.
func (a *applier) catchUp(ctx context.Context, reason string) (err error) {
	defer func() {
		if err != nil {
			a.misses.fail(err)
			a.publish(Head{}, nil)
		}
	}()
	if !a.failed.IsZero() && a.now().Sub(a.failed) < retryPause {
		return errPaused
	}
	if why := a.mustLoad(); why != "" {
		if err := a.reload(ctx, why); err != nil {
			return err
		}
	}
	counted := false
	for reloads := 0; ; {
		st, err := a.step(ctx, a.watermark)
		if err != nil {
			return err
		}
		why := st.judge(a.watermark, a.ahead)
		if routine := reason == "probe" || reason == "miss"; !counted && (!routine || why != "" || len(st.entries) > 0) {
			a.metrics.catchups.WithLabelValues(reason).Inc()
			counted = true
		}
		if why != "" {
			if reloads++; reloads > maxReloads {
				return fmt.Errorf("the log does not continue a load (%s)", why)
			}
			if err := a.reload(ctx, why); err != nil {
				return err
			}
			continue
		}
		to, end := a.take(&st, a.watermark)
		a.watermark, a.synced = to, end
		a.publish(st.head, nil)
		if end {
			a.misses.answer(&st)
			if a.resubscribed {
				a.excused, a.resubscribed = to.token(), false
			}
			return nil
		}
	}
}

// mustLoad returns why the set must be loaded before the log can tell anything, or "". A load that
// broke off may have left entries of another history, even if Redis has gone back to ours since.
func (a *applier) mustLoad() (reason string) {
	switch {
	case !a.loaded:
		return "start"
	case a.store.loading:
		return "broken off"
	}
	return ""
}

// take applies what a step tells to a store that is at w, and returns where it is then, and
// whether that is the end of the log. The misses may be answered if it is.
func (a *applier) take(st *step, w Head) (to Head, end bool) {
	to, end = st.reach(w)
	changes := st.changes(to.Epoch, a.log)
	if end {
		changes = append(changes, st.fills(to.Epoch, a.log)...)
	}
	a.store.apply(to.Epoch, changes)
	a.ahead = st.head
	return to, end
}

// step asks the source for what came after w and for the keys that are missed.
func (a *applier) step(ctx context.Context, w Head) (step, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	st, err := a.source.step(ctx, w, a.ahead, a.misses.keys())
	a.note(err)
	return st, err
}

// judge returns why the log does not continue w or has lost ahead, or "" if all is well. It looks at
// the entries themselves: whatever was looked at before could have been trimmed since.
func (st *step) judge(w, ahead Head) (reason string) {
	switch {
	case st.head.Epoch != w.Epoch:
		return "epoch" // a new history, or none any more
	case st.at != 0 && st.at != w.WriteID, ahead.Version > w.Version && st.ahead != ahead.WriteID:
		return "history"
	}
	at := w
	for _, e := range st.entries {
		if e.writes == 0 {
			return "format" // of another build, or damaged
		}
		if e.version-uint64(e.writes) != at.Version {
			return "trimmed"
		}
		if e.previous != at.WriteID {
			return "history"
		}
		at.Version, at.WriteID = e.version, e.writeID
	}
	if len(st.entries) == 0 && st.head != w || at.Version > st.head.Version ||
		at.Version == st.head.Version && at != st.head {
		return "history"
	}
	return ""
}

// reach returns the head up to which the entries lead, and whether that is the end of the log.
func (st *step) reach(w Head) (to Head, end bool) {
	if n := len(st.entries); n > 0 {
		w.Version, w.WriteID = st.entries[n-1].version, st.entries[n-1].writeID
	}
	return w, w == st.head
}

// changes returns the state of the keys in the entries, at the instant of the step.
func (st *step) changes(epoch uint64, log *slog.Logger) []change {
	changes := make([]change, 0, len(st.values))
	for _, l := range st.values {
		changes = append(changes, l.logged(epoch, log))
	}
	return changes
}

// fills returns the state of the missed keys, but for those whose state is among the changes.
func (st *step) fills(epoch uint64, log *slog.Logger) []change {
	var changes []change
	for _, l := range st.missed {
		if !l.skipped && !st.has(l.key) {
			changes = append(changes, l.logged(epoch, log))
		}
	}
	return changes
}

func (st *step) has(key string) bool {
	for _, l := range st.values {
		if l.key == key {
			return true
		}
	}
	return false
}

// change returns what a value in Redis means for the store. A value that is not one of ours counts
// as absent.
func (l *lookup) change(epoch uint64) (change, error) {
	c := change{key: l.key}
	if !l.present {
		return c, nil
	}
	written, rec, err := decodeStored(l.stored)
	if err != nil {
		return c, err
	}
	if rec.key != l.key {
		return c, fmt.Errorf("%w: it is of key %.40q", errFrame, rec.key)
	}
	c.present, c.value, c.version = true, rec.value, written.versionIn(epoch)
	return c, nil
}

func (l *lookup) logged(epoch uint64, log *slog.Logger) change {
	c, err := l.change(epoch)
	if err != nil {
		log.Error("a value in Redis is not one of ours; it counts as absent", "key", l.key, "err", err)
	}
	return c
}

// batch collects changes and keeps the newest one of a key: two Sets of a new key in one batch
// leave ristretto with the older value.
type batch struct {
	changes []change
	index   map[string]int
}

func newBatch(size int) *batch {
	return &batch{changes: make([]change, 0, size), index: make(map[string]int, size)}
}

func (b *batch) add(c change) {
	if i, ok := b.index[c.key]; ok {
		b.changes[i] = c
		return
	}
	b.index[c.key] = len(b.changes)
	b.changes = append(b.changes, c)
}

func (b *batch) reset() {
	b.changes = b.changes[:0]
	clear(b.index)
}

// lagOf returns how many writes are between w and the newest known head.
func lagOf(w, newest Head) uint64 {
	if newest.Epoch != w.Epoch {
		return newest.Version
	}
	if newest.Version < w.Version {
		return 0
	}
	return min(newest.Version-w.Version, math.MaxInt64)
}
