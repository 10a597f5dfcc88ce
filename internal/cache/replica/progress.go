package replica

import (
	"math"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// published is the part of the applier's state that other goroutines read. Only the applier stores it.
type published struct {
	atomic.Pointer[progress]
	ready atomic.Bool // the first snapshot is complete and the subscription was confirmed, or serveFile was called; stays true
	// withheld is set while no read may see the entries, because they are from a file.
	withheld atomic.Bool
	hazards  atomic.Pointer[[]string]
	gate     gate // opens when progress changes
	digests  digestLog

	// begun counts the changes to the store. The applier increments it before each one, so while it equals the number in
	// progress, the store has not changed since that progress was published.
	begun atomic.Uint64
}

func newPublished() *published {
	p := new(published)
	p.Store(&progress{})
	p.hazards.Store(new([]string))
	return p
}

// progress is how far the applier has come. It is immutable.
type progress struct {
	watermark  protocol.Head
	newest     protocol.Head
	begun      uint64 // see published.begun
	whole      bool   // the store holds the state at the watermark; otherwise single values may be newer
	synced     bool
	loaded     bool
	noHistory  bool
	fromFile   bool          // the entries are from a file, and Redis has not confirmed them
	snapshotAt time.Time     // end of the last snapshot; zero before the first one
	snapshotIn time.Duration // time that it took
	problem    string        // reason of a failed log step or of a stale Redis; "" if there is none
	contact    time.Time     // time at which the replica was last known to have every write
	snapshot   *SnapshotProgress
	digest     *Digest // digest at the watermark; nil while the store may hold another state
}

// lag returns the number of writes between the watermark and the newest known head.
func (p *progress) lag() uint64 {
	if p.newest.Epoch != p.watermark.Epoch {
		return p.newest.Version
	}
	if p.newest.Version < p.watermark.Version {
		return 0
	}
	return min(p.newest.Version-p.watermark.Version, math.MaxInt64)
}

// SnapshotProgress is the progress of a snapshot.
type SnapshotProgress struct {
	Reason string
	Loaded int64
	Total  int64 // estimate: Redis also counts the keys of other programs
	Began  time.Time
}

// Left estimates the remaining time. It reports false before the first values.
func (p *SnapshotProgress) Left(now time.Time) (left time.Duration, ok bool) {
	if p.Loaded == 0 {
		return 0, false
	}
	perValue := now.Sub(p.Began).Seconds() / float64(p.Loaded)
	return time.Duration(perValue * float64(max(p.Total-p.Loaded, 0)) * float64(time.Second)), true
}

// copy returns a copy that other goroutines may read.
func (p *SnapshotProgress) copy() *SnapshotProgress {
	c := *p
	return &c
}

// publish makes the applier's state visible and wakes all waiters. newest is the head that Redis has just returned,
// or the zero Head.
func (a *applier) publish(newest protocol.Head, snapshot *SnapshotProgress) {
	last := a.public.Load()
	p := &progress{
		watermark: a.watermark, newest: newest, loaded: a.loaded, begun: a.public.begun.Load(),
		whole:     a.loaded && !a.store.InSnapshot() && (a.ahead.Epoch != a.watermark.Epoch || a.ahead.Version <= a.watermark.Version),
		synced:    a.synced && a.failed.IsZero() && a.stale == nil && !a.noHistory,
		noHistory: a.noHistory, fromFile: a.restoring, contact: last.contact,
		snapshot: snapshot, snapshotAt: a.snapshotAt, snapshotIn: a.snapshotTook,
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
	a.publishDigest(p)
	a.public.Store(p)
	a.public.gate.open()
}
