package replica

import (
	"log/slog"
	"time"

	"heavy-read-api/internal/cache/clock"
	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/loglimit"
)

// applier keeps the store equal to Redis. Its methods run in a turn (see turns), one after the other. Goroutines without
// a turn read what it publishes.
type applier struct {
	source  source
	store   *store.Owner
	inbox   inboxOwner
	misses  missOwner
	public  *published
	sub     *subscription
	vanish  *vanishWatch
	file    *file // nil without a snapshot file
	feed    *feed.Feed
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	clock   *clock.Estimate // estimate of Redis's clock, from log steps

	// watermark is a head up to which every write is in the store. While synced, the store holds exactly the
	// state at the watermark. Otherwise single values may be newer, and no message may be applied until a log step
	// has reached the end of the log.
	watermark protocol.Head
	synced    bool
	loaded    bool // a snapshot has completed, or a file has been loaded

	// noHistory is set after a snapshot of a Redis that has values and no epoch: a client deleted the sequence, the epoch or
	// the log, and until the next write nothing shows deletes. A snapshot decides, because while one is read, the store may
	// already have values of a history that has just begun.
	noHistory bool

	// restoring is set from the loading of a file until the store holds the state of Redis, or Redis has shown that the
	// file is of another history.
	restoring bool

	// partial is set after a start from a file that did not have the whole data set, although memory had room for more:
	// a snapshot brings the rest.
	partial bool

	// ahead is the newest write whose value the store may hold. It is beyond the watermark while a catch-up or a
	// snapshot is incomplete. When the log has lost it, Redis was rolled back, and the store may hold values of writes
	// that Redis no longer has.
	ahead protocol.Head

	failed       time.Time // time of the last request to Redis, if it failed; else zero
	failingSince time.Time // time of the first request since which all have failed; else zero
	err          error     // error of the last request
	stale        error     // reason for which the server may lack writes of its primary, as of the last probe; else nil

	stepLimit byteBound     // size of a log step, in bytes
	part      protocol.Part // part of the log entry after the watermark whose values are in the store

	// cautious is set after a log step with missed keys has failed, because one of their values may be too large for
	// the link. Catch-up then runs without them, and they are fetched one at a time.
	cautious bool

	received uint64 // newest version in a message since the last snapshot or subscription

	// newest is the newest version that the store may hold, also while a snapshot is read. behindSince is the
	// time since which the Redis replica has been behind it; zero while it is not.
	newest      protocol.Token
	behindSince time.Time

	generation      uint64    // number of snapshots that have begun
	snapshotAt      time.Time // end of the last snapshot
	snapshotTook    time.Duration
	snapshotFailing bool // the last snapshot failed
	dropped         int  // number of entries that the last snapshot dropped because Redis did not have them

	requested snapshotReason // snapshot that an audit or the scrub has requested; else noSnapshot
	scrub     scrub
	nextWalk  time.Time // earliest time of the next walk over all entries

	liveness liveness

	// ignored holds epochs of other stacks that use the same channel: Pub/Sub ignores the database number. If one of
	// them becomes the shard's epoch, a probe detects it.
	ignored map[uint64]struct{}

	decoded protocol.Commit // scratch space of applyMessages and applyNow
	pending pendingCommits  // likewise; empty between two calls

	invalidMessages, invalidValues, failedSnapshots loglimit.Limit
}

func newApplier(src source, st *store.Owner, in *inbox, misses *missQueue, log *slog.Logger, m *metrics) *applier {
	return &applier{source: src, store: st, inbox: inboxOwner{in}, misses: missOwner{misses}, public: newPublished(),
		feed: feed.New(feedWindow, feedLog{src}), log: log, metrics: m, now: time.Now, clock: clock.New(), pending: newPendingCommits(),
		stepLimit: byteBound{least: stepLeast, most: stepBytes}, ignored: make(map[uint64]struct{})}
}

// noteNewest records that the store may hold what was written at t.
func (a *applier) noteNewest(t protocol.Token) {
	if t.Epoch != a.newest.Epoch || t.Version > a.newest.Version {
		a.newest = t
	}
}
