package replica

import (
	"context"
	"fmt"
	"heavy-read-api/internal/cache/census"
	"heavy-read-api/internal/redisnode"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// vanishWatch detects values that Redis has lost without a write, which the log does not show: evicted,
// expired, or deleted by another client. Only the applier's goroutine may call its methods; any goroutine may
// read hazards.
//
// The server's counters and its number of keys show that a key has gone, but not whose it was, so a snapshot
// decides. Where other programs use the same Redis most snapshots find nothing missing, and the pause between
// two of them doubles each time.
type vanishWatch struct {
	redis *redisnode.Finder
	log   *slog.Logger

	last      census.Census
	strangers int64         // number of other programs' keys at the last check; -1 when unknown
	due       time.Time     // time of the next check
	suspect   string        // why a snapshot is needed; "" when none is
	notBefore time.Time     // earliest time of the next snapshot
	pause     time.Duration // least time between two snapshots
	found     string        // what the last such snapshot found missing; "" for nothing
	foundAt   time.Time
	unseen    bool // the last check failed

	hazards atomic.Pointer[[]string]
}

const (
	vanishPeriod   = 5 * time.Second // between two looks
	vanishMinPause = 5 * time.Second
	vanishMaxPause = time.Hour
	vanishKept     = 10 * time.Minute // how long a finding is shown
	vanishTimeout  = 500 * time.Millisecond
)

func newVanishWatch(f *redisnode.Finder, log *slog.Logger) *vanishWatch {
	w := &vanishWatch{redis: f, log: log, strangers: -1, pause: vanishMinPause}
	w.hazards.Store(new([]string))
	return w
}

// begin records the counters before the first snapshot, so that a key lost during it is detected.
func (w *vanishWatch) begin(ctx context.Context) {
	if c, err := w.census(ctx); err == nil {
		w.last = c
	}
}

// check asks Redis when a check is due, and takes a snapshot when values may be missing. It blocks for a few
// round trips, and for the snapshot.
func (w *vanishWatch) check(ctx context.Context, a *applier) {
	if !a.synced || a.now().Before(w.due) {
		return
	}
	w.due = a.now().Add(vanishPeriod)
	for range 3 {
		c, err := w.census(ctx)
		if err != nil {
			if !w.unseen {
				w.log.Debug("cannot check whether Redis evicts or expires values", "err", err)
			}
			w.unseen = true
			return
		}
		w.unseen = false
		// The keys can be compared with memory if no write came between.
		head, err := a.fetchHead(ctx)
		if err != nil {
			return
		}
		still := head == a.watermark && a.store.Complete()
		strangers := c.Keys - a.store.Entries()
		if a.watermark.Epoch != 0 {
			strangers -= 3 // sequence, epoch and log
		}
		w.compare(c, still, strangers)
		if still || !a.store.Complete() {
			break
		}
		if err := a.catchUp(ctx, "probe"); err != nil {
			return
		}
	}
	if w.suspect != "" && !a.now().Before(w.notBefore) {
		w.confirm(ctx, a)
	}
	w.report(a.now())
}

func (w *vanishWatch) census(ctx context.Context) (census.Census, error) {
	ctx, cancel := context.WithTimeout(ctx, vanishTimeout)
	defer cancel()
	n, err := w.redis.Node(ctx)
	if err != nil {
		return census.Census{}, err
	}
	return census.Take(ctx, n)
}

// compare compares a census with the last one. strangers is the number of other programs' keys; it is valid
// only if the census and memory are of the same instant.
func (w *vanishWatch) compare(c census.Census, valid bool, strangers int64) {
	if c.Run == w.last.Run {
		switch {
		case c.Evicted > w.last.Evicted:
			w.suspect = fmt.Sprintf("Redis has evicted %d keys", c.Evicted-w.last.Evicted)
		case c.Expired > w.last.Expired:
			w.suspect = fmt.Sprintf("in Redis %d keys have expired", c.Expired-w.last.Expired)
		}
	}
	w.last = c
	if !valid {
		return
	}
	if strangers < max(w.strangers, 0) {
		w.suspect = fmt.Sprintf("Redis has %d keys less than expected", max(w.strangers, 0)-strangers)
	}
	w.strangers = max(strangers, 0)
}

// confirm takes a snapshot, which drops what Redis does not have any more.
func (w *vanishWatch) confirm(ctx context.Context, a *applier) {
	why := w.suspect
	if err := a.takeSnapshot(ctx, "vanished"); err != nil {
		return // the applier goes on with it
	}
	w.suspect, w.strangers = "", -1
	w.pause = min(2*w.pause, vanishMaxPause)
	if a.dropped > 0 && a.store.Complete() {
		w.pause = vanishMinPause
		w.foundAt = a.now()
		w.found = fmt.Sprintf("posts that were gone from Redis without a write, found at %s and dropped from memory: %d (%s)",
			w.foundAt.UTC().Format("15:04:05 UTC"), a.dropped, why)
		w.log.Error("values were gone from Redis without a write, and are gone from memory now", "values", a.dropped, "reason", why)
	}
	w.notBefore = a.now().Add(max(w.pause, 10*a.snapshotTook))
}

// report publishes the hazards to the values in Redis, and logs new ones.
func (w *vanishWatch) report(now time.Time) {
	hazards := w.last.Hazards()
	// Of more keys that expire than strangers there are, some are ours.
	if ours := w.last.Expiring - w.strangers; w.strangers >= 0 && ours > 0 {
		hazards = append(hazards, fmt.Sprintf("at least %d of the posts in Redis will expire: remove their expiry (PERSIST)", ours))
	}
	if w.found != "" && now.Sub(w.foundAt) < vanishKept {
		hazards = append(hazards, w.found)
	}
	last := w.hazards.Swap(&hazards)
	for _, h := range hazards {
		if h != w.found && !slices.Contains(*last, h) {
			w.log.Warn("Redis may lose values without a write", "reason", h)
		}
	}
}
