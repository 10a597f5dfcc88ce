package replica

import "time"

// DefaultScrub is the default time in which the scrub reads the whole store once.
const DefaultScrub = 10 * time.Minute

// scrub is the state of the scrub, which compares the store with the digests of what was put into it. It runs in a
// turn after each probe, a few slabs at a time, because store and index are consistent only within a turn.
type scrub struct {
	period time.Duration // time of one pass; 0 disables the scrub
	last   time.Time     // time of the last part
	owed   int64         // bytes to check in the next part; negative when the last part checked more than it had to
}

// scrubStore checks the next part of the store. What it finds is logged and counted, and a snapshot replaces it.
func (a *applier) scrubStore() {
	s := &a.scrub
	now := a.now()
	since := now.Sub(s.last)
	s.last = now
	if s.period <= 0 || since <= 0 || !a.loaded {
		return
	}
	// Time in which the applier did something else is not made up for: the rate is a bound.
	s.owed += int64(float64(a.store.SlabBytes()) * min(since, time.Second).Seconds() / s.period.Seconds())
	if s.owed <= 0 {
		return
	}
	part := a.store.Scrub(s.owed)
	s.owed -= part.Bytes
	if part.Bytes == 0 {
		s.owed = 0
	}
	a.metrics.scrubbed.Add(float64(part.Bytes))
	if part.Wrapped {
		a.metrics.scrubs.Inc()
		if d, ok := a.digest(); ok {
			a.log.Debug("the scrub has read all entries", "digest", hex(d.Value), "head", d.Head)
		}
	}
	if part.Damaged == 0 {
		return
	}
	a.metrics.damaged.Add(float64(part.Damaged))
	a.log.Error("MEMORY IS DAMAGED: bytes of posts, or places in the index, are not what was stored; reads of these posts may have been wrong. A snapshot replaces them. If this happens again, check the memory of this machine",
		"blocks", part.Damaged, "entries", part.Entries)
	a.requestSnapshot(snapshotDamaged)
}
