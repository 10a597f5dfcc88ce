package store

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// An item takes 80 to 220 bytes in ristretto's two maps, so an item is not an entry but a bucket of about a dozen. Buckets
// are admitted and evicted as a whole.
const (
	meanBucket = 12  // entries per bucket in a store of many entries
	fewBuckets = 256 // buckets up to which each entry gets one, so that an eviction drops a small part of the store

	// bucketCharge is an upper bound of a bucket's part of the index apart from its blocks, in bytes. Go doubles the table
	// of a map when entries or tombstones fill it and never shrinks it: 179 were measured in stores that only grow, and
	// tombstones of evicted buckets may come on top.
	bucketCharge = 256
	// bucketMean is the mean size of the same after a snapshot, in bytes. Between 95 and 179 were measured.
	bucketMean = 140
)

// index is ristretto and a table of the buckets that it holds. ristretto decides which buckets these are. Reads take them
// from the table, which costs one load instead of two atomic operations, a pool and a map, and count as accesses of
// ristretto's admission policy by sampling. A Get holds a pointer to the index until it returns, so that the garbage
// collector detects when the last one has ended.
type index struct {
	generation uint64                             // number of the index within the store, from 1
	cache      *ristretto.Cache[uint32, struct{}] // by number of the bucket
	count      atomic.Uint32                      // buckets; it only grows
	table      table                              // buckets that the cache holds, or will when it has processed its queue
	retired    *atomic.Bool                       // another index has replaced this one: its buckets leave without being counted
}

// newIndex returns an index of count empty buckets, none of which is held.
func (o *Owner) newIndex(count uint32) (*index, error) {
	retired := new(atomic.Bool)
	cache, err := ristretto.NewCache(&ristretto.Config[uint32, struct{}]{
		NumCounters:        o.cfg.NumCounters,
		MaxCost:            o.capacity(count),
		BufferItems:        o.cfg.BufferItems,
		IgnoreInternalCost: true, // part of bucketCharge, which was measured
		// ristretto takes the shard of an item from the low bits, and bits of its Bloom filter from the high ones.
		KeyToHash: func(n uint32) (hash, conflict uint64) { return uint64(n)<<32 | uint64(n), 0 },
		OnEvict: func(i *ristretto.Item[struct{}]) {
			if !retired.Load() {
				o.evictions.Add(o.leave(i))
			}
		},
		OnReject: func(i *ristretto.Item[struct{}]) { o.rejects.Add(o.leave(i)) },
	})
	if err != nil {
		return nil, err
	}
	o.generation++
	i := &index{generation: o.generation, cache: cache, retired: retired}
	for n := range count {
		i.table.extend(n)
	}
	i.count.Store(count)
	return i, nil
}

// accessShare is the number of reads of which ristretto counts one.
const accessShare = 8

// bucket returns the bucket that has a hash among count buckets, or nil if it is not held.
func (i *index) bucket(hash, count uint32) *block {
	n := bucketOf(hash, count)
	if rand.Uint32()%accessShare == 0 {
		i.cache.Get(n)
	}
	return i.table.at(n).Load()
}

// retire ends the goroutines of i, which the store does not use any more, once the running reads have ended.
// ristretto's Close closes a channel that its Get sends on, so a Get during Close panics. Counting the reads would
// cost each of them two atomic operations; the garbage collector tracks them for free. There is no data race either:
// Close takes the lock of every shard first, and Get releases one of them last.
func (i *index) retire() {
	i.retired.Store(true)
	runtime.AddCleanup(i, func(c *ristretto.Cache[uint32, struct{}]) { go c.Close() }, i.cache)
}

// bucketsFor returns the number of buckets that a number of entries should have.
func (o *Owner) bucketsFor(entries int64) uint32 {
	n := max(min(entries, fewBuckets), entries/meanBucket)
	return uint32(max(1, min(n, o.max/2/(bucketCharge+blockSize), 1<<31)))
}

// idle returns the memory of the buckets that are more than the entries need, in bytes.
func (o *Owner) idle() int64 {
	return (bucketCharge + blockSize) * (int64(o.count) - int64(o.bucketsFor(o.entries.Load())))
}

// reindex replaces an index that has at least twice as many buckets as the entries need, when its idle memory exceeds a
// sixteenth of the store: neither the number of buckets nor ristretto's maps shrink. Reads use the old index until the new
// one is filled.
func (o *Owner) reindex() {
	count := o.bucketsFor(o.entries.Load())
	if count > o.count/2 || o.idle() <= o.max/16 {
		return
	}
	next, err := o.newIndex(count)
	if err != nil {
		return // cannot happen: the same configuration has succeeded before
	}
	o.wait()
	builders := make([]builder, count)
	for n := range builders {
		builders[n] = newBuilder()
	}
	var blocks int64
	for n := range o.count {
		first := o.at(n).Load()
		blocks -= first.blocks()
		first.slots(func(_ slotAt, hash uint32, r ref) { builders[bucketOf(hash, count)].add(hash, r) })
	}
	o.current, o.count, o.limit = next, count, o.capacity(count)
	o.told, o.toldAll, o.dirty = make([]int64, count), 0, newBitmap(count)
	for n := range count {
		first := builders[n].first
		blocks += first.blocks()
		o.at(n).Store(first)
		o.admit(n, blockSize)
	}
	o.countBlocks(blocks)
	o.index.Swap(next).retire()
}
