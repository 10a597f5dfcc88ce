package store

import (
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// The index is two maps of ristretto. Go doubles a map's table when entries or tombstones fill it and never
// shrinks it, so the cost of an entry varies.
const (
	// indexMean is the mean share of an entry in a set that was loaded, in bytes. Between 108 and 187 were
	// measured, 172 for a million entries.
	indexMean = 170
	// indexCharge is the largest share of an entry that was measured, in bytes, in a store whose keys
	// change all the time.
	indexCharge = 216
)

// index is ristretto, which maps a key to the place of its entry. A read keeps it alive, so that the
// garbage collector finds out when the last one has ended.
type index struct {
	cache   *ristretto.Cache[[]byte, ref]
	retired *atomic.Bool // whether its entries are not the store's any more
}

// newIndex returns an empty index that reports removed entries to the store.
func (s *Store) newIndex() (*index, error) {
	retired := new(atomic.Bool)
	cache, err := ristretto.NewCache(&ristretto.Config[[]byte, ref]{
		NumCounters:        s.cfg.NumCounters,
		MaxCost:            s.limit,
		BufferItems:        s.cfg.BufferItems,
		IgnoreInternalCost: true, // indexCharge counts it, by measurement
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
// tracks them without extra cost. There is no data race either: Close takes the lock of every shard first, and Get
// releases one of them last.
func (i *index) retire() {
	i.retired.Store(true)
	runtime.AddCleanup(i, func(c *ristretto.Cache[[]byte, ref]) { go c.Close() }, i.cache)
}

// smallIndex is the number of entries for which an index may be made without a charge.
const smallIndex = 1000

// idle returns the most memory that the index keeps for entries that have gone, in bytes.
func (s *Store) idle() int64 {
	return indexCharge * max(0, s.peak-max(s.entries.Load(), smallIndex))
}

// reindex replaces an index that was made for twice as many entries as there are, when what that leaves
// idle is more than a sixteenth of the store. Reads go on in the old one until the new one is filled.
func (s *Store) reindex() {
	if s.entries.Load() > s.peak/2 || s.idle() <= s.max/16 {
		return
	}
	next, err := s.newIndex()
	if err != nil {
		return // cannot happen: the same configuration has succeeded before
	}
	refs := make([]ref, 0, s.entries.Load())
	s.cache.IterValues(func(r ref) bool {
		refs = append(refs, r)
		return false
	})
	for _, r := range refs {
		sl := s.slabs.at(r)
		for !next.cache.Set(sl.key(r.offset()), r, sl.cost(r.offset())) {
			next.cache.Wait() // the buffer was full, and the Set forgotten
		}
	}
	next.cache.Wait()
	s.cache, s.peak = next.cache, s.entries.Load()
	s.index.Swap(next).retire()
}
