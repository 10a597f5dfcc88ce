package store

import (
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// ristretto's index is two maps. Go doubles the table of a map when entries or tombstones fill it and never
// shrinks it, so the memory per entry varies.
const (
	// indexMean is the mean size of the index per entry after a snapshot, in bytes. Between 108 and 187 were
	// measured, 172 for a million entries.
	indexMean = 170
	// indexCharge is the largest size of the index per entry that was measured, in bytes, in a store whose keys
	// change all the time.
	indexCharge = 216
)

// index is ristretto, which maps a key to the place of its entry. A Get holds a pointer to it until it returns,
// so that the garbage collector detects when the last one has ended.
type index struct {
	cache   *ristretto.Cache[[]byte, ref]
	retired *atomic.Bool // another index has replaced this one: its entries leave without being counted
}

// newIndex returns an empty index that reports removed entries to the store.
func (o *Owner) newIndex() (*index, error) {
	retired := new(atomic.Bool)
	s := o.Store
	cache, err := ristretto.NewCache(&ristretto.Config[[]byte, ref]{
		NumCounters:        o.cfg.NumCounters,
		MaxCost:            o.limit,
		BufferItems:        o.cfg.BufferItems,
		IgnoreInternalCost: true, // part of indexCharge, which was measured
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

// retire ends the goroutines of i, which the store does not use any more, once the running reads have ended.
// ristretto's Close closes a channel that its Get sends on, so a Get during Close panics. Counting the reads would
// cost each of them two atomic operations; the garbage collector tracks them for free. There is no data race either:
// Close takes the lock of every shard first, and Get releases one of them last.
func (i *index) retire() {
	i.retired.Store(true)
	runtime.AddCleanup(i, func(c *ristretto.Cache[[]byte, ref]) { go c.Close() }, i.cache)
}

// smallIndex is the number of entries for which an index may be made without a charge.
const smallIndex = 1000

// idle returns the most memory that the index keeps for entries that have left, in bytes.
func (o *Owner) idle() int64 {
	return indexCharge * max(0, o.peak-max(o.entries.Load(), smallIndex))
}

// reindex replaces an index that once held at least twice as many entries as now, when its idle memory exceeds a
// sixteenth of the store. Reads use the old index until the new one is filled.
func (o *Owner) reindex() {
	if o.entries.Load() > o.peak/2 || o.idle() <= o.max/16 {
		return
	}
	next, err := o.newIndex()
	if err != nil {
		return // cannot happen: the same configuration has succeeded before
	}
	refs := make([]ref, 0, o.entries.Load())
	o.cache.IterValues(func(r ref) bool {
		refs = append(refs, r)
		return false
	})
	for _, r := range refs {
		sl := o.slabs.at(r)
		for !next.cache.Set(sl.key(r.offset()), r, sl.cost(r.offset())) {
			next.cache.Wait() // the buffer was full and the Set was dropped
		}
	}
	next.cache.Wait()
	o.cache, o.peak = next.cache, o.entries.Load()
	o.index.Swap(next).retire()
}
