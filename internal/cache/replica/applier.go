package replica

import (
	"context"
	"errors"
	"fmt"
	"heavy-read-api/internal/cache/clock"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/loglimit"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// applier owns the state of a replica. All its methods run on one goroutine, or one after the
// other in the simulator; everyone else reads what it publishes.
type applier struct {
	source  source
	store   *store.Store
	inbox   *inbox
	misses  *missQueue
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	clock   *clock.Estimate // of Redis, as the steps show it

	// watermark is the history up to here: every write up to it is in the store. While synced, the
	// store holds exactly the watermark's state. While not, single values may be newer, and no
	// message may be applied until a step has reached the end of the log.
	watermark protocol.Head
	synced    bool
	loaded    bool // the whole set has been loaded once

	// ahead is the newest write of which the store may hold the value, beyond the watermark while a
	// catch-up or a load is half done. When the log does not have it any more, Redis was rolled
	// back since, and the store may hold what never happened.
	ahead protocol.Head

	failed time.Time // of the last step that failed, zero after one that did not
	err    error     // of that step
	stale  error     // why the server may lack writes of its primary, as of the last probe

	stepLimit byteBound     // size of one log step, in bytes
	part      protocol.Part // part of the log entry after the watermark whose values are in the store

	// cautious is set after a step with missed keys failed: it may have failed because of one of their
	// values. Steps catch up without them then, and one key is asked for at a time.
	cautious bool

	received uint64 // newest version that came by the channel since the last snapshot or subscription

	// newest is the newest version that the store may hold, page by page of a snapshot too. The Redis
	// replica that is read from has been behind it since behindSince; zero while it is not.
	newest      protocol.Token
	behindSince time.Time

	// Redis without an epoch has no history, and nothing in it shows that values were deleted. So
	// the snapshot is repeated until a write begins a history.
	snapshotAt   time.Time // end of the last snapshot
	snapshotTook time.Duration

	// For the check that the subscription is alive. The watermark at a probe, lastProbed, must have come
	// by the channel silentAfter later, also if a log step brought it, unless exempt covers it: it was
	// written before the subscription was confirmed, or a snapshot brought it.
	lastProbed, exempt protocol.Token
	probedAt           time.Time
	resubscribed       bool // the subscription was confirmed again, and no catch-up has completed since

	// ignored holds epochs of messages that turned out not to be of this shard: Pub/Sub knows no
	// database numbers, and other stacks may use the same channel. If one becomes the shard's epoch, a
	// probe finds that out.
	ignored map[uint64]struct{}

	snapshotFailing bool // the last one failed
	dropped         int  // entries that the last snapshot has dropped, because Redis did not have them

	invalidMessages, invalidValues, failedSnapshots loglimit.Limit

	probed  uint64          // version of the watermark at the last probe
	decoded protocol.Commit // that hear looks at

	public atomic.Pointer[progress]
	gate   gate
}

// progress is what the applier lets others see.
type progress struct {
	watermark protocol.Head
	newest    protocol.Head
	synced    bool
	loaded    bool
	noHistory bool
	problem   string    // why the last step failed, or why Redis may be stale
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

func newApplier(src source, st *store.Store, in *inbox, misses *missQueue, log *slog.Logger, m *metrics) *applier {
	a := &applier{source: src, store: st, inbox: in, misses: misses, log: log, metrics: m, now: time.Now, clock: clock.New(),
		stepLimit: byteBound{least: stepLeast, most: stepBytes}, ignored: make(map[uint64]struct{})}
	a.public.Store(&progress{})
	return a
}

// publish makes the watermark visible and wakes all waiters. newest is the head that Redis
// last reported, or the zero Head for none.
func (a *applier) publish(newest protocol.Head, snapshot *SnapshotProgress) {
	last := a.public.Load()
	p := &progress{
		watermark: a.watermark, newest: newest, loaded: a.loaded,
		synced:    a.synced && a.failed.IsZero() && a.stale == nil && !a.noHistory(),
		noHistory: a.noHistory(), contact: last.contact, snapshot: snapshot,
	}
	switch {
	case a.err != nil:
		p.problem = a.err.Error()
	case a.stale != nil:
		p.problem = a.stale.Error()
	}
	if newest == (protocol.Head{}) {
		p.newest = last.newest
	}
	if p.synced && (newest.Version > 0 || newest == a.watermark) {
		p.contact = a.now()
	}
	if p.noHistory {
		p.contact = a.snapshotAt
	}
	if p.synced && (p.newest.Epoch != a.watermark.Epoch || p.newest.Version < a.watermark.Version) {
		p.newest = a.watermark
	}
	a.public.Store(p)
	a.gate.open()
}

// Failed steps are not repeated sooner than this, so that a Redis that is away costs its replicas
// nothing, and a miss fails at once.
const retryPause = 200 * time.Millisecond

var errPaused = errors.New("no answer from Redis a moment ago")

// resync settles whether the watermark is the head of Redis.
func (a *applier) resync(ctx context.Context, reason string) {
	if reason == "subscribed" {
		a.resubscribed, a.received = true, 0
	}
	a.synced = false
	if err := a.catchUp(ctx, reason); err != nil {
		a.log.Debug("catch-up failed", "reason", reason, "err", err)
	}
}

// current asks the source whether it is current.
func (a *applier) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return a.source.current(ctx)
}

// setStale remembers why Redis may be stale, and logs when that changes.
func (a *applier) setStale(err error) {
	switch {
	case err != nil && a.stale == nil:
		a.log.Warn("the Redis server may lack writes of its primary; reads are served from memory and may be stale", "err", err)
	case err == nil && a.stale != nil:
		a.log.Info("the Redis server has every write again")
	}
	a.stale = err
}

// silentAfter is how long a write may take by the channel, in addition to the time between two
// probes, before the subscription counts as dead.
const silentAfter = stepTimeout

// probe looks whether the watermark is still the head. It reports a subscription that has not
// delivered in time what the log had at an earlier probe: a link can die without a word.
func (a *applier) probe(ctx context.Context) (silent bool) {
	delivered := a.delivered()
	silent = !delivered && a.now().Sub(a.probedAt) >= silentAfter
	moving := a.watermark.Version > a.probed
	a.probed = a.watermark.Version
	head, err := a.fetchHead(ctx)
	if err == nil && !(a.synced && moving && head.Epoch == a.watermark.Epoch && head.Version > a.watermark.Version) {
		// Else the channel is at work: it need not be overtaken, only watched.
		err = a.catchUp(ctx, "probe")
		head = a.watermark
	}
	if err != nil {
		a.publish(protocol.Head{}, nil)
		a.log.Debug("probe failed", "err", err)
		return false
	}
	a.setStale(a.current(ctx))
	a.publish(head, nil)
	if delivered || silent {
		a.lastProbed, a.probedAt = a.watermark.Token(), a.now()
	}
	return silent
}

// exemptUpTo makes the liveness check expect nothing up to at from the channel.
func (a *applier) exemptUpTo(at protocol.Head) {
	a.exempt, a.lastProbed, a.probedAt = at.Token(), at.Token(), a.now()
}

// delivered reports whether lastProbed came by the channel, or need not.
func (a *applier) delivered() bool {
	version, tracked := a.inbox.received(a.lastProbed.Epoch)
	if a.exempt.Epoch == a.lastProbed.Epoch {
		version = max(version, a.exempt.Version)
	}
	return !tracked || version >= a.lastProbed.Version || a.resubscribed
}

// fetchHead asks for the head alone.
func (a *applier) fetchHead(ctx context.Context) (protocol.Head, error) {
	if !a.failed.IsZero() && a.now().Sub(a.failed) < retryPause {
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

// noteTime takes in the time of a step that was asked for at began.
func (a *applier) noteTime(began time.Time, st *protocol.LogStep) {
	if st.Micros != 0 {
		a.clock.Observe(began, a.now(), st.Micros)
	}
}

// noteResult remembers whether the last question to Redis was answered, and logs when that changes.
func (a *applier) noteResult(err error) {
	switch {
	case err == nil && !a.failed.IsZero():
		a.log.Info("Redis answers again")
	case err != nil && a.failed.IsZero():
		a.log.Warn("Redis is unreachable; serving from memory (reads may be stale)", "err", err)
	}
	a.failed, a.err = time.Time{}, err
	if err != nil {
		a.failed = a.now()
	}
}

// maxSnapshots bounds the loads of one catch-up.
const maxSnapshots = 3

// catchUp steps through the log until its end, loads everything where the log cannot tell, and
// answers the misses that wait. The values of missed keys are read in the same instant as the log,
// so that no answer is ever ahead of the watermark or overtaken by it.
func (a *applier) catchUp(ctx context.Context, reason string) (err error) {
	defer func() {
		if err != nil {
			a.misses.fail(err)
			a.publish(protocol.Head{}, nil)
		}
	}()
	if !a.failed.IsZero() && a.now().Sub(a.failed) < retryPause {
		return errPaused
	}
	if why := a.needsSnapshot(); why != "" {
		if err := a.takeSnapshot(ctx, why); err != nil {
			return err
		}
	}
	counted := false
	for reloads := 0; ; {
		st, err := a.fetchStep(ctx, a.watermark)
		if err != nil {
			return err
		}
		if err := a.checkLag(&st); err != nil {
			return err
		}
		why := judge(&st, a.watermark, a.ahead)
		if routine := reason == "probe" || reason == "miss"; !counted && (!routine || why != "" || len(st.Entries) > 0) {
			a.metrics.catchups.WithLabelValues(reason).Inc()
			counted = true
		}
		if why != "" {
			if reloads++; reloads > maxSnapshots {
				return fmt.Errorf("the log does not continue from the snapshot (%s)", why)
			}
			if err := a.takeSnapshot(ctx, why); err != nil {
				return err
			}
			continue
		}
		to, end := a.applyStep(&st, a.watermark)
		a.watermark, a.synced = to, end
		a.publish(st.Head, nil)
		if end {
			a.misses.answer(&st)
			if a.resubscribed {
				a.exempt, a.resubscribed = to.Token(), false
			}
			if a.cautious {
				a.watermark = a.fetchOneMissed(ctx, to)
				a.synced = a.watermark == to
				a.publish(protocol.Head{}, nil)
			}
			return nil
		}
	}
}

// missTimeout bounds a step for one missed key: nobody waits longer for a read.
const missTimeout = 450 * time.Millisecond

// fetchOneMissed asks for one missed key, from the end of the log that is at, and returns where the store is then.
// When it fails, only the reads of that key do.
func (a *applier) fetchOneMissed(ctx context.Context, at protocol.Head) (to protocol.Head) {
	keys := a.misses.keys(1)
	if len(keys) == 0 {
		return at
	}
	ctx, cancel := context.WithTimeout(ctx, missTimeout)
	defer cancel()
	began := a.now()
	st, err := a.source.fetchStep(ctx, protocol.Query{Watermark: at, Ahead: a.ahead, Missed: keys, Limit: stepLeast})
	if err != nil {
		var refused redis.Error // Redis answered, for instance that the key's slot is on its way to another node
		a.misses.refuse(keys[0], err, !errors.As(err, &refused))
		return at
	}
	if judge(&st, at, a.ahead) != "" || a.checkLag(&st) != nil {
		return at // the next catch-up settles that
	}
	to, end := a.applyStep(&st, at)
	if !end {
		for i := range st.Missed {
			st.Missed[i].Skipped = true
		}
	}
	a.misses.answer(&st)
	a.cautious = a.cautious && a.now().Sub(began) > missTimeout/4
	return to
}

// lagTolerance is how long a Redis replica may take to catch up with what this replica has from
// another node, before the difference counts as a rollback.
const lagTolerance = 5 * time.Second

// checkLag reports a Redis replica that is behind what the store holds of the same history. A snapshot of
// it would bring the past back. A primary is never behind: it was rolled back.
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
	return fmt.Errorf("the Redis replica is at version %d, behind %d, which this reader has from another one", st.Head.Version, a.newest.Version)
}

// noteNewest notes that the store may hold what was written at t.
func (a *applier) noteNewest(t protocol.Token) {
	if t.Epoch != a.newest.Epoch || t.Version > a.newest.Version {
		a.newest = t
	}
}

// needsSnapshot returns why the set must be loaded before the log can tell anything, or "". A load that
// broke off may have left entries of another history, even if Redis has gone back to ours since.
func (a *applier) needsSnapshot() (reason string) {
	switch {
	case !a.loaded:
		return "start"
	case a.store.InSnapshot():
		return "broken off"
	case a.watermark.Epoch == 0 && a.now().Sub(a.snapshotAt) >= max(noHistoryPause, 10*a.snapshotTook):
		return reasonNoHistory
	}
	return ""
}

const reasonNoHistory = "no history"

// noHistoryPause is the least time between two snapshots of a Redis without a history.
const noHistoryPause = 5 * time.Second

// noHistory reports whether memory holds values of a Redis that has no history: somebody deleted
// sequence, epoch or log, and until the next write nothing tells that values were deleted too.
func (a *applier) noHistory() bool {
	return a.loaded && a.watermark.Epoch == 0 && a.store.Entries() > 0
}

// applyStep applies what a step tells to a store that is at w, and returns where it is then, and
// whether that is the end of the log. The misses may be answered if it is.
func (a *applier) applyStep(st *protocol.LogStep, w protocol.Head) (to protocol.Head, end bool) {
	to, end = reach(st, w)
	changes := a.changes(st.Values, to.Epoch)
	if end {
		changes = append(changes, a.fills(st, to.Epoch)...)
	}
	a.store.Apply(to.Epoch, changes)
	a.ahead, a.part = st.Head, st.Part
	a.noteNewest(st.Head.Token())
	return to, end
}

// fetchStep asks the source for what came after w and for the keys that are missed.
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
		a.stepLimit.shrink() // it may have been too much for the link
		a.cautious = a.cautious || len(q.Missed) > 0
	case st.Size >= limit && a.now().Sub(began) < stepTimeout/4:
		a.stepLimit.grow() // twice as much takes half of the time that there is
	}
	return st, err
}

// reach returns the head up to which the entries lead, and whether that is the end of the log.
func reach(st *protocol.LogStep, w protocol.Head) (to protocol.Head, end bool) {
	if n := len(st.Entries); n > 0 {
		w.Version, w.WriteID = st.Entries[n-1].Version, st.Entries[n-1].WriteID
	}
	return w, w == st.Head
}

func has(st *protocol.LogStep, key string) bool {
	for _, l := range st.Values {
		if l.Key == key {
			return true
		}
	}
	return false
}

// change returns what a value in Redis means for the store. A value that is not one of ours counts
// as absent.
func changeOf(l *protocol.Value, epoch uint64) (store.Change, error) {
	c := store.Change{Key: l.Key}
	if !l.Present {
		return c, nil
	}
	written, rec, err := protocol.DecodeStored(l.Stored)
	if err != nil {
		return c, err
	}
	if rec.Key != l.Key {
		return c, fmt.Errorf("%w: it is of key %.40q", protocol.ErrFrame, rec.Key)
	}
	c.Present, c.Value, c.Version = true, rec.Value, written.VersionIn(epoch)
	return c, nil
}

// changes returns what the values of a step mean for the store.
func (a *applier) changes(values []protocol.Value, epoch uint64) []store.Change {
	changes := make([]store.Change, 0, len(values))
	for i := range values {
		changes = append(changes, a.change(&values[i], epoch))
	}
	return changes
}

// fills returns the state of the missed keys, but for those whose state is among the changes.
func (a *applier) fills(st *protocol.LogStep, epoch uint64) []store.Change {
	var changes []store.Change
	for i := range st.Missed {
		if l := &st.Missed[i]; !l.Skipped && !has(st, l.Key) {
			changes = append(changes, a.change(l, epoch))
		}
	}
	return changes
}

// change is lookup.change, with an error logged.
func (a *applier) change(l *protocol.Value, epoch uint64) store.Change {
	c, err := changeOf(l, epoch)
	if err != nil {
		a.invalidValues.Log(a.log.Error, a.now(), "a value in Redis was not stored by the write script; it counts as absent", "key", l.Key, "err", err)
	}
	return c
}

// lagOf returns how many writes are between w and the newest known head.
func lagOf(w, newest protocol.Head) uint64 {
	if newest.Epoch != w.Epoch {
		return newest.Version
	}
	if newest.Version < w.Version {
		return 0
	}
	return min(newest.Version-w.Version, math.MaxInt64)
}
