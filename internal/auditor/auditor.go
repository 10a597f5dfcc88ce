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
	// repairPause is the time that a reader has for its first snapshot before it is repaired again. It doubles with each
	// snapshot that does not help, up to maxRepairPause, because each one loads all posts from Redis.
	repairPause    = 15 * time.Second
	maxRepairPause = 10 * time.Minute
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

	now         func() time.Time  // clock of the repairs
	differing   int               // comparisons in a row with a difference
	suspectedAt time.Time         // time of the difference that a scan of Redis is to decide; zero if there is none
	scanSince   time.Time         // time at which a scan was requested that has not ended; zero if there is none
	agreedAt    time.Time         // end of the last scan of Redis with which a reader agreed
	fits        *bool             // whether all posts fit into the auditor's copy; nil before the first scan
	repairs     map[string]repair // repairs of readers that have not been identical with Redis since, by reader

	unlisted, undecided loglimit.Limit
}

// repair is the state of the repair of a reader.
type repair struct {
	snapshots int           // snapshots that the reader has accepted
	pause     time.Duration // pause after the last of them
	next      time.Time     // earliest time of the next request for one
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
	a.noteFit(&own)
	copies := []audit.Copy{{Name: ownName}}
	if a.fits != nil && *a.fits {
		copies[0].Digests = a.replica.Digests()
	}
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
	for i := range copies[1:] {
		if c := &copies[1+i]; shared(&copies[0], c) && !all.Differs(ownName, c.Name) {
			delete(a.repairs, c.Name)
		}
	}
	a.verdict.set(readers, &among, &all, a)
	a.metrics.note(len(readers), &among, &all, a)
	if len(all.Differ) == 0 {
		a.differing = 0
		// During a scan of Redis the copies that differed may not be comparable: that decides nothing.
		if !a.suspectedAt.IsZero() && own.Snapshot == nil && all.Identical() {
			a.log.Info("all copies that can be compared are identical again", "version", all.Head.Version)
			a.suspectedAt = time.Time{}
		}
		return
	}
	if a.differing++; a.differing >= confirmed {
		a.resolve(ctx, readers, &all, &own)
	}
}

// noteFit notes whether all posts fit into the auditor's copy, and logs a change. A copy that is being loaded or catches up
// does not show it, and a snapshot may have begun while own was read.
func (a *auditor) noteFit(own *replica.Status) {
	for _, s := range []replica.Status{*own, a.replica.Status()} {
		if !s.Synced || s.Snapshot != nil || s.NoHistory || s.Complete != own.Complete {
			return
		}
	}
	if a.fits != nil && *a.fits == own.Complete {
		return
	}
	switch {
	case !own.Complete:
		a.log.Error("THE POSTS DO NOT FIT INTO AUDIT_MAX_SIZE: the readers are compared with each other, but not with Redis, and a reader that differs is not repaired; raise AUDIT_MAX_SIZE", "bytes", own.MaxBytes)
	case a.fits != nil:
		a.log.Info("all posts fit into AUDIT_MAX_SIZE again; comparing with Redis")
	}
	a.fits = &own.Complete
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
		a.log.Error("COPIES OF THE POSTS DIFFER at the same version; Redis decides which is wrong", "copies", strings.Join(pairs, "; "), "version", all.Head.Version)
		a.suspectedAt = time.Now()
	}
	if a.fits != nil && !*a.fits {
		a.undecided.Log(a.log.Error, time.Now(), "cannot find out which reader is wrong, because the posts do not fit into AUDIT_MAX_SIZE; no reader is repaired: raise AUDIT_MAX_SIZE, or restart the readers one by one")
		return
	}
	if began := own.SnapshotAt.Add(-own.SnapshotIn); own.Snapshot != nil || !began.After(a.suspectedAt) {
		a.requestScan(ctx, 0)
		return
	}
	for _, r := range readers {
		if all.Differs(ownName, r.name) && !a.now().Before(a.repairs[r.name].next) {
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
	err = a.client.Reload(ctx, r.addr, "differs from Redis")
	state := a.repairs[r.name]
	defer func() { a.repairs[r.name] = state }()
	if err != nil {
		state.next = a.now().Add(repairPause)
		a.log.Warn("the reader did not accept the request for a snapshot; it will be repeated", "reader", r.name, "next_in", repairPause, "err", err)
		return
	}
	a.metrics.repairs.Inc()
	state.snapshots++
	state.pause = min(max(2*state.pause, repairPause), maxRepairPause)
	state.next = a.now().Add(state.pause)
	a.log.Warn("the reader loads a snapshot; if it still differs afterwards, it loads another one", "reader", r.name, "snapshots", state.snapshots, "next_in", state.pause)
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
