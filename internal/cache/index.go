package cache

import (
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// index is ristretto, which maps a key to the place of its entry. A read keeps it alive, so that the
// garbage collector finds out when the last one has ended.
type index struct {
	cache   *ristretto.Cache[[]byte, ref]
	retired *atomic.Bool // whether its entries are not the store's any more
}

// newIndex returns an empty index, which tells the store what leaves it.
func (s *store) newIndex() (*index, error) {
	retired := new(atomic.Bool)
	cache, err := ristretto.NewCache(&ristretto.Config[[]byte, ref]{
		NumCounters:        s.cfg.NumCounters,
		MaxCost:            s.max,
		BufferItems:        s.cfg.BufferItems,
		IgnoreInternalCost: true, // indexOverhead counts it, by measurement
		OnExit: func(r ref) {
			if !retired.Load() {
				s.exit(r)
			}
		},
		OnEvict: func(*ristretto.Item[ref]) {
			if !retired.Load() {
				s.evictions.Add(1)
			}
		},
		OnReject: func(*ristretto.Item[ref]) { s.rejects.Add(1) },
	})
	if err != nil {
		return nil, err
	}
	return &index{cache: cache, retired: retired}, nil
}

// retire ends the goroutines of i, which the store does not use any more, once the reads that run have
// ended. ristretto's Close closes a channel that its Get sends on, and a Get that comes in between
// panics. To count the reads would cost each of them two atomic operations; the garbage collector
// knows anyway. There is no data race either: Close takes the lock of every shard first, and Get
// releases one of them last.
func (i *index) retire() {
	i.retired.Store(true)
	runtime.AddCleanup(i, func(c *ristretto.Cache[[]byte, ref]) { go c.Close() }, i.cache)
}
