package replica

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"heavy-read-api/internal/cache/census"
	"heavy-read-api/internal/redisnode"
)

// vanishWatch detects values that Redis has lost without a write, which the log does not show: evicted, expired, or
// deleted by another client. Only the applier uses it.
//
// The server's counters and its number of keys show that a key has gone but not which one, so a snapshot decides.
// If other programs use the same Redis, most snapshots find nothing missing, so the pause between two of them doubles
// each time.
type vanishWatch struct {
	redis *redisnode.Finder
	log   *slog.Logger

	last      census.Census
	others    int64         // number of other programs' keys at the last check; -1 when unknown
	due       time.Time     // time of the next check
	suspect   string        // reason for a snapshot; "" if none is needed
	notBefore time.Time     // earliest time of the next snapshot
	pause     time.Duration // minimum time between two snapshots
	found     string        // values that the last such snapshot found missing, in a sentence; "" if none were
	foundAt   time.Time
	failed    bool // the last check failed
}

const (
	vanishPeriod   = 5 * time.Second // time between two checks
	vanishMinPause = 5 * time.Second
	vanishMaxPause = time.Hour
	vanishShown    = 10 * time.Minute // time for which a finding is reported
	vanishTimeout  = 500 * time.Millisecond
)

func newVanishWatch(f *redisnode.Finder, log *slog.Logger) *vanishWatch {
	return &vanishWatch{redis: f, log: log, others: -1, pause: vanishMinPause}
}

// begin records the counters before the first snapshot, so that a key that is lost during it is detected.
func (w *vanishWatch) begin(ctx context.Context) {
	if c, err := w.census(ctx); err == nil {
		w.last = c
	}
}

// census counts the keys of the server. It blocks for at most vanishTimeout.
func (w *vanishWatch) census(ctx context.Context) (census.Census, error) {
	ctx, cancel := context.WithTimeout(ctx, vanishTimeout)
	defer cancel()
	n, err := w.redis.Node(ctx)
	if err != nil {
		return census.Census{}, err
	}
	return census.Take(ctx, n)
}

// compare compares a census with the last one. others is the number of other programs' keys; it is valid only if the
// census and memory are of the same instant.
func (w *vanishWatch) compare(c census.Census, valid bool, others int64) {
	if c.Run == w.last.Run {
		switch {
		case c.Evicted > w.last.Evicted:
			w.suspect = fmt.Sprintf("Redis has evicted %d keys", c.Evicted-w.last.Evicted)
		case c.Expired > w.last.Expired:
			w.suspect = fmt.Sprintf("%d keys have expired in Redis", c.Expired-w.last.Expired)
		}
	}
	w.last = c
	if !valid {
		return
	}
	if others < max(w.others, 0) {
		w.suspect = fmt.Sprintf("Redis has %d keys fewer than expected", max(w.others, 0)-others)
	}
	w.others = max(others, 0)
}

// hazards describes how Redis may lose values without a write, or has just lost some.
func (w *vanishWatch) hazards(now time.Time) []string {
	hazards := w.last.Hazards()
	// When more keys expire than other programs have, some of them are posts.
	if ours := w.last.Expiring - w.others; w.others >= 0 && ours > 0 {
		hazards = append(hazards, fmt.Sprintf("at least %d of the posts in Redis will expire: remove their expiry (PERSIST)", ours))
	}
	if w.found != "" && now.Sub(w.foundAt) < vanishShown {
		hazards = append(hazards, w.found)
	}
	return hazards
}

// checkVanished compares the keys in Redis with memory when a check is due, and takes a snapshot when values may be
// missing. It blocks for a few round trips, and for the snapshot.
func (a *applier) checkVanished(ctx context.Context) {
	w := a.vanish
	if !a.synced || a.now().Before(w.due) {
		return
	}
	w.due = a.now().Add(vanishPeriod)
	for range 3 {
		c, err := w.census(ctx)
		if err != nil {
			if !w.failed {
				w.log.Debug("cannot check whether Redis evicts or expires values", "err", err)
			}
			w.failed = true
			return
		}
		w.failed = false
		// The keys can be compared with memory if no write came between the census and this request.
		head, err := a.fetchHead(ctx)
		if err != nil {
			return
		}
		valid := head == a.watermark && a.store.Complete()
		others := c.Keys - a.store.Entries()
		if a.watermark.Epoch != 0 {
			others -= 3 // sequence, epoch and log
		}
		w.compare(c, valid, others)
		if valid || !a.store.Complete() {
			break
		}
		if err := a.catchUp(ctx, catchUpProbe); err != nil {
			return
		}
	}
	if w.suspect != "" && !a.now().Before(w.notBefore) {
		a.dropVanished(ctx)
	}
	a.reportHazards()
}

// dropVanished takes a snapshot, which drops the entries that Redis no longer has.
func (a *applier) dropVanished(ctx context.Context) {
	w := a.vanish
	why := w.suspect
	if err := a.takeSnapshot(ctx, snapshotVanished); err != nil {
		return // the next catch-up repeats it
	}
	w.suspect, w.others = "", -1
	w.pause = min(2*w.pause, vanishMaxPause)
	if a.dropped > 0 && a.store.Complete() {
		w.pause = vanishMinPause
		w.foundAt = a.now()
		w.found = fmt.Sprintf("at %s posts were missing in Redis without a write and were dropped from memory: %d (%s)",
			w.foundAt.UTC().Format("15:04:05 UTC"), a.dropped, why)
		w.log.Error("Redis has lost values without a write; reads of them return 404: write them again, and check maxmemory-policy, expiry and other clients of this Redis", "values", a.dropped, "reason", why)
	}
	w.notBefore = a.now().Add(max(w.pause, 10*a.snapshotTook))
}

// reportHazards publishes the hazards to the values in Redis, and logs new ones.
func (a *applier) reportHazards() {
	hazards := a.vanish.hazards(a.now())
	last := a.public.hazards.Swap(&hazards)
	for _, h := range hazards {
		if h != a.vanish.found && !slices.Contains(*last, h) {
			a.log.Warn("Redis may lose values without a write", "reason", h)
		}
	}
}
