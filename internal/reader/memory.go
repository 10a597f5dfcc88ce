package reader

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"heavy-read-api/internal/cache/replica"
)

// Most of a reader's heap are slabs, which live long and have no pointers in them: a collection of
// a million posts takes about 10 ms of one core, so frequent collections are cheap, and memory that
// waits for one is not. The heap may therefore grow by a fixed headroom, instead of doubling as it
// would by default: 2 % of half a gigabyte, 100 % of a few posts.
//
// While the first load runs, it may grow by half of what is still to come: a collection on the way
// only costs time (a load of a million posts took 30 of them and a fifth of its time without this),
// and the garbage that is left in between has to fit beside the posts in the end.
const (
	headroom     = 10 << 20 // bytes
	minGCPercent = 2        // of very large heaps, to bound the share of the collector
	minLive      = 4 << 20  // bytes: for less, Go does not collect
	paceInterval = 100 * time.Millisecond
)

// pace keeps the pace of the garbage collector fitting the size of the cache until ctx is done.
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
			debug.FreeOSMemory() // what the first load has left in pieces: updates would come on top of it
			ready = true
		}
		metrics.Read(live)
		// Each change stops the world for a moment.
		if want := gcPercent(int64(live[0].Value.Uint64()), expected(status)); want < current*9/10 || want > current*11/10 {
			debug.SetGCPercent(want)
			current = want
		}
	}
}

// expected returns the bytes that the entries will take once the first load has ended, if it runs: as
// many as it could be, because Redis counts the keys of others too.
func expected(s replica.Status) int64 {
	if s.Ready || s.Snapshot == nil || s.Entries == 0 {
		return s.Held
	}
	return min(int64(float64(s.Held)/float64(s.Entries)*float64(max(s.Snapshot.Total, s.Entries))), s.MaxBytes)
}

// gcPercent returns the GOGC for a heap of which the last collection found so many bytes alive, and
// of which so many are expected.
func gcPercent(live, expected int64) int {
	live = max(live, minLive) // nothing was found before the first collection
	return int(max(100*max((expected-live)/2, min(headroom, live))/live, minGCPercent))
}

// limitMemory makes the collector work harder before the container's memory limit is reached. It
// leaves a tenth for what is not the heap. Without a limit, or with GOMEMLIMIT set, it does nothing.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(0.9), memlimit.WithProvider(memlimit.FromCgroup))
	switch {
	case err != nil:
		log.Debug("no memory limit of a container", "err", err)
	case limit > 0 && limit < math.MaxInt64:
		log.Info("memory limit", "bytes", limit)
	}
}
