package daemon

import (
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// limitMemory sets Go's memory limit to 90 % of the container's, so that the collector works harder before
// the container is killed; the rest is for memory outside Go's control. Without a container limit, or with
// GOMEMLIMIT set, it does nothing.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(0.9), memlimit.WithProvider(memlimit.FromCgroup))
	switch {
	case err != nil:
		log.Debug("no container memory limit", "err", err)
	case limit > 0 && limit < math.MaxInt64:
		log.Info("Go memory limit set", "bytes", limit)
	}
}
