package auditor

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/loglimit"
)

const (
	askTimeout    = time.Second            // bounds the answers to one comparison
	inspectPause  = 100 * time.Millisecond // pause before an inspection is repeated
	locateTimeout = 20 * time.Second       // bounds the search for the keys that differ
	// confirmed is the number of comparisons in a row that must differ, so that a reader that is just repairing itself
	// is left alone.
	confirmed = 2
	maxNamed  = 20 // keys in a log line
	// repairPause is the time that a reader has for its snapshot before it is repaired again.
	repairPause = 15 * time.Second
)

// ownName is the name of the auditor's own copy, which comes from Redis.
const ownName = "Redis"

// auditor compares the copies. Only its goroutine uses it, except for verdict and metrics.
type auditor struct {
	cfg     Config
	log     *slog.Logger
	client  *audit.Client
	replica *replica.Replica // the auditor's own copy: checksums of what it has read from Redis itself
	metrics *metrics
	verdict verdict

	differing   int                  // comparisons in a row with a difference
	suspectedAt time.Time            // time of the difference that a scan of Redis is to decide; zero if there is none
	scanSince   time.Time            // time at which a scan was requested that has not ended; zero if there is none
	agreedAt    time.Time            // end of the last scan of Redis with which a reader agreed
	repairedAt  map[string]time.Time // times of the last repairs since the copies were identical, by reader

	unlisted loglimit.Limit
}

// run compares until ctx is done.
func (a *auditor) run(ctx context.Context) {
	ticker := time.NewTicker(a.cfg.Every)
	defer ticker.Stop()
	for {
		a.compare(ctx)
		a.scan(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// compare compares the readers once, and deals with a difference.
func (a *auditor) compare(ctx context.Context) {
	readers := a.ask(ctx)
	own := a.replica.Status() // before the digests, so that they are not older than this snapshot
	copies := []audit.Copy{{Name: ownName, Digests: a.replica.Digests()}}
	for _, r := range readers {
		copies = append(copies, audit.Copy{Name: r.name, Digests: r.digests})
	}
	among, all := audit.Compare(copies[1:]), audit.Compare(copies)
	if ctx.Err() != nil {
		return
	}
	if len(all.Differ) == 0 && slices.ContainsFunc(copies[1:], func(c audit.Copy) bool { return shared(&copies[0], &c) }) {
		a.agreedAt = own.SnapshotAt
	}
	a.verdict.set(readers, &among, &all, a.agreedAt)
	a.metrics.note(len(readers), &among, &all, a.agreedAt)
	if len(all.Differ) == 0 {
		a.differing = 0
		// During a scan of Redis the copies that differed may not be comparable: that decides nothing.
		if !a.suspectedAt.IsZero() && own.Snapshot == nil && all.Identical() {
			a.log.Info("all copies that can be compared are identical again", "version", all.Head.Version)
			a.suspectedAt = time.Time{}
			clear(a.repairedAt)
		}
		return
	}
	if a.differing++; a.differing >= confirmed {
		a.resolve(ctx, readers, &all, &own)
	}
}

// shared reports whether two copies have a head in common.
func shared(a, b *audit.Copy) bool {
	r := audit.Compare([]audit.Copy{*a, *b})
	return len(r.Compared) == 2
}

// resolve finds out which copies are wrong, names the keys, and has the readers among them load a snapshot. Redis decides:
// the auditor's copy counts as right only after a scan of Redis that began after the difference was seen.
func (a *auditor) resolve(ctx context.Context, readers []reader, all *audit.Result, own *replica.Status) {
	if a.suspectedAt.IsZero() {
		a.metrics.differences.Inc()
		var pairs []string
		for _, p := range all.Differ {
			pairs = append(pairs, p[0]+" and "+p[1])
		}
		a.log.Error("COPIES OF THE POSTS DIFFER at the same version; scanning Redis to find out which is wrong", "copies", strings.Join(pairs, "; "), "version", all.Head.Version)
		a.suspectedAt = time.Now()
	}
	if began := own.SnapshotAt.Add(-own.SnapshotIn); own.Snapshot != nil || !began.After(a.suspectedAt) {
		a.requestScan(ctx, 0)
		return
	}
	for _, r := range readers {
		if all.Differs(ownName, r.name) && time.Since(a.repairedAt[r.name]) >= repairPause {
			a.repairedAt[r.name] = time.Now()
			a.repair(ctx, r)
		}
	}
}

// repair names the keys of a reader that are wrong and has it load a snapshot.
func (a *auditor) repair(ctx context.Context, r reader) {
	finding, cancel := context.WithTimeout(ctx, locateTimeout)
	found, err := audit.Locate(finding, local{a.replica}, remote{a.client, r.addr})
	cancel()
	var named []string
	for _, d := range found[:min(len(found), maxNamed)] {
		named = append(named, d.String())
	}
	why := "none found"
	if err != nil {
		why = err.Error()
	}
	if len(named) > 0 {
		why = strings.Join(named, "; ")
	}
	a.metrics.wrongKeys.Add(float64(len(found)))
	a.verdict.name(r.name, named)
	a.log.Error("A READER HAS WRONG POSTS: its digest differs from that of Redis; loading a snapshot there replaces them", "reader", r.name, "keys", len(found), "differences", why)
	if err := a.client.Reload(ctx, r.addr, "differs from Redis"); err != nil {
		a.log.Warn("the reader did not accept the request for a snapshot; it will be repeated", "reader", r.name, "err", err)
		return
	}
	a.metrics.repairs.Inc()
}

// scan has Redis scanned again when it is time.
func (a *auditor) scan(ctx context.Context) {
	s := a.replica.Status()
	if s.Snapshot != nil || s.SnapshotAt.IsZero() {
		return // one is running
	}
	if !a.scanSince.IsZero() && s.SnapshotAt.After(a.scanSince) {
		a.scanSince = time.Time{}
	}
	if time.Since(s.SnapshotAt) >= a.cfg.ScanPause {
		a.requestScan(ctx, a.cfg.ScanRate)
	}
}

// scanBegins is the time in which a requested scan begins.
const scanBegins = 2 * time.Second

// requestScan has the auditor's copy read all of Redis again, at this many keys per second; 0 means without a bound. It
// does nothing but change the rate when a scan runs or is about to begin.
func (a *auditor) requestScan(ctx context.Context, rate int64) {
	a.replica.SetScanRate(rate)
	if a.replica.Status().Snapshot != nil || !a.scanSince.IsZero() && time.Since(a.scanSince) < scanBegins {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := a.replica.Reload(ctx); err != nil {
		a.log.Debug("cannot scan Redis now", "err", err)
		return
	}
	a.scanSince = time.Now()
}
