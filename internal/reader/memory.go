package reader

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"heavy-read-api/internal/cache"
)

// Most of a reader's heap are slabs, which live long and have no pointers in them: a collection of
// a million posts takes about 10 ms of one core, so frequent collections are cheap, and memory that
// waits for one is not. The heap may therefore grow by a fixed headroom, instead of doubling as it
// would by default: 3 % of half a gigabyte, 100 % of a few posts.
const (
	headroom     = 14 << 20 // bytes
	minGCPercent = 3        // of very large heaps, to bound the share of the collector
	maxGCPercent = 100      // the default of Go
	paceInterval = 200 * time.Millisecond
)

// pace keeps the pace of the garbage collector fitting the size of the cache until ctx is done.
func pace(ctx context.Context, replica *cache.Replica) {
	ticker := time.NewTicker(paceInterval)
	defer ticker.Stop()
	defer debug.SetGCPercent(debug.SetGCPercent(maxGCPercent))
	current := maxGCPercent
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// Each change stops the world for a moment.
		if want := gcPercent(replica.Status().Bytes); want < current*9/10 || want > current*11/10 {
			debug.SetGCPercent(want)
			current = want
		}
	}
}

// gcPercent returns the GOGC for a cache of that many bytes.
func gcPercent(bytes int64) int {
	return int(min(max(100*headroom/max(bytes, 1), minGCPercent), maxGCPercent))
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
