package replica

import (
	"context"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// liveness checks that the subscription delivers. A link can die without an error, so the channel must deliver the
// watermark of a probe within silentAfter, also if a log step has brought it already. Exempt are versions that the
// channel need not deliver: they were written before the subscription was confirmed, or a snapshot brought them.
type liveness struct {
	lastProbed   protocol.Token // watermark at a probe, which the channel must deliver
	probedAt     time.Time      // time of that probe
	exempt       protocol.Token // newest version that the channel need not deliver
	resubscribed bool           // the subscription was confirmed again, and no catch-up has completed since
	lastVersion  uint64         // version of the watermark at the last probe
}

// silentAfter is the time that the channel may take to deliver a write, in addition to the time between two probes,
// before the subscription counts as dead.
const silentAfter = stepTimeout

// exemptUpTo makes the check expect nothing up to at from the channel.
func (l *liveness) exemptUpTo(at protocol.Head, now time.Time) {
	l.exempt, l.lastProbed, l.probedAt = at.Token(), at.Token(), now
}

// delivered reports whether the channel has delivered lastProbed, or need not.
func (l *liveness) delivered(in inboxOwner) bool {
	version, tracked := in.received(l.lastProbed.Epoch)
	if l.exempt.Epoch == l.lastProbed.Epoch {
		version = max(version, l.exempt.Version)
	}
	return !tracked || version >= l.lastProbed.Version || l.resubscribed
}

// probe checks that the watermark is the head of Redis, and catches up when it is not. It reports a subscription that
// has not delivered in time what the log had at an earlier probe.
func (a *applier) probe(ctx context.Context) (silent bool) {
	l := &a.liveness
	delivered := l.delivered(a.inbox)
	silent = !delivered && a.now().Sub(l.probedAt) >= silentAfter
	moving := a.watermark.Version > l.lastVersion
	l.lastVersion = a.watermark.Version
	head, err := a.fetchHead(ctx)
	if err == nil && !(a.synced && moving && head.Epoch == a.watermark.Epoch && head.Version > a.watermark.Version) {
		// Otherwise the channel delivers and is only behind; catching up would overtake it.
		err = a.catchUp(ctx, catchUpProbe)
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
		l.lastProbed, l.probedAt = a.watermark.Token(), a.now()
	}
	return silent
}

// current returns why the server may lack writes of its primary.
func (a *applier) current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return a.source.current(ctx)
}

// setStale stores why the server may lack writes, and logs when that changes.
func (a *applier) setStale(err error) {
	switch {
	case err != nil && a.stale == nil:
		a.log.Warn("the Redis server may lack writes of its primary; serving from memory (reads may be stale)", "err", err)
	case err == nil && a.stale != nil:
		a.log.Info("the Redis server has every write of its primary again")
	}
	a.stale = err
}
