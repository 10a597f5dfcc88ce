package replica

import (
	"context"
	"time"
)

// run keeps the store equal to Redis until ctx is done. Afterwards every miss fails with errStopped. It has a turn while
// it works and none while it waits.
func (t *turns) run(ctx context.Context, period time.Duration) {
	defer t.take(func(a *applier) { a.misses.close(errStopped) })
	probe := time.NewTicker(period)
	defer probe.Stop()
	onProbe := func(a *applier) { a.onProbe(ctx) }
	t.take(func(a *applier) {
		if a.restore(ctx); !a.restoring {
			a.vanish.begin(ctx)
		}
		a.resync(ctx, catchUpStart)
	})
	for {
		// A probe that is due goes first: under a flood of misses or messages, select could choose those every time.
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			t.take(onProbe)
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			t.take(onProbe)
		case <-t.misses.wake:
			t.take(func(a *applier) { _ = a.catchUp(ctx, catchUpMiss) }) // the misses get the error
		case <-t.inbox.wake:
			t.take(func(a *applier) { a.onMessages(ctx) })
		case f := <-t.calls:
			t.take(f)
		}
	}
}

// onMessages applies the messages in the inbox, and catches up when some may be missing.
func (a *applier) onMessages(ctx context.Context) {
	live := a.sub.live.Load()
	messages, reason := a.inbox.drain()
	a.applyMessages(ctx, messages)
	if reason != noCatchUp {
		a.resync(ctx, reason)
	} else if !a.synced {
		a.resync(ctx, catchUpRetry)
	}
	a.confirmReady(live)
}

func (a *applier) onProbe(ctx context.Context) {
	live := a.sub.live.Load()
	if a.probe(ctx) && live != 0 {
		a.log.Warn("the subscription delivers nothing although Redis has new writes; reconnecting")
		a.sub.redial()
	}
	a.confirmReady(live)
	a.serveFile()
	a.checkVanished(ctx)
	a.scrubStore()
}

// confirmReady makes the replica ready when the store is in sync and the subscription is still the one that was live
// before: from then on no message can be missed unnoticed.
func (a *applier) confirmReady(live uint64) {
	if !a.public.ready.Load() && a.synced && live != 0 && a.sub.live.Load() == live {
		a.public.ready.Store(true)
		a.log.Info("ready", "entries", a.store.Entries(), "version", a.watermark.Version)
	}
}

// close frees the store. It is called after run.
func (a *applier) close() { a.store.Close() }
