package reader

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"heavy-read-api/internal/cache/replica"
)

// Most of the heap consists of long-lived slabs without pointers, and a collection with a million posts takes
// only about 10 ms of one core. So GOGC is set to let the heap grow by a fixed headroom instead of doubling.
//
// During the first snapshot the heap may grow by half of the bytes still expected. Otherwise a snapshot of
// a million posts runs 30 collections, which take a fifth of its time.
const (
	headroom     = 10 << 20 // growth of the heap between two collections, in bytes
	minGCPercent = 2        // lower bound of GOGC, which bounds the collector's share of the CPU
	minLive      = 4 << 20  // live heap assumed before the first collection, in bytes; Go does not collect below it
	paceInterval = 100 * time.Millisecond
)

// pace adapts GOGC to the size of the cache until ctx is done, then restores it.
func pace(ctx context.Context, replica *replica.Replica) {
	ticker := time.NewTicker(paceInterval)
	defer ticker.Stop()
	current := 100
	defer debug.SetGCPercent(debug.SetGCPercent(current))
	ready := false
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		status := replica.Status()
		if status.Ready && !ready {
			debug.FreeOSMemory() // the garbage of the first snapshot, before updates allocate on top of it
			ready = true
		}
		metrics.Read(live)
		// Ignore small changes, because each SetGCPercent stops the world.
		if want := gcPercent(int64(live[0].Value.Uint64()), expected(status)); want < current*9/10 || want > current*11/10 {
			debug.SetGCPercent(want)
			current = want
		}
	}
}

// expected returns the expected size of all entries in bytes: an upper estimate of their size after the
// first snapshot while that runs, because Total includes foreign keys; the current size otherwise.
func expected(s replica.Status) int64 {
	if s.Ready || s.Snapshot == nil || s.Entries == 0 {
		return s.Held
	}
	return min(int64(float64(s.Held)/float64(s.Entries)*float64(max(s.Snapshot.Total, s.Entries))), s.MaxBytes)
}

// gcPercent returns the GOGC for a heap with live bytes after the last collection and expected bytes of
// entries.
func gcPercent(live, expected int64) int {
	live = max(live, minLive) // zero before the first collection
	return int(max(100*max((expected-live)/2, min(headroom, live))/live, minGCPercent))
}
