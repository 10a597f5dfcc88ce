package store

import (
	"fmt"
	"slices"

	"github.com/dgraph-io/ristretto/v2"
)

// Change is a value to store, or a key to remove.
type Change struct {
	Key     string
	Value   string
	Version uint64
	Present bool // false removes the key
}

// Owner changes a store. Its methods must be called by one goroutine, or one after the other.
type Owner struct {
	*Store // the part that any goroutine may use

	cfg   Config
	cache *ristretto.Cache[[]byte, ref] // that of the index
	alloc *allocator

	pending     bool // changes have been put and may not be visible
	inSnapshot  bool
	overflow    bool   // the running or last snapshot did not fit
	compacted   int64  // dead bytes that the last compaction left
	scratch     []byte // key that is being changed
	limit       int64  // most that used may come to, in bytes; ristretto's MaxCost
	peak        int64  // largest number of entries since the index was made, which determines its size
	flushedSize int64  // bytes that the slabs held after the last flush
}

// New returns the owner of an empty store. The configuration must be complete, as WithDefaults returns it.
func New(cfg Config) (*Owner, error) {
	alloc := newAllocator(slabSizeFor(cfg.MaxSize))
	o := &Owner{Store: &Store{slabs: alloc.slabTable, max: cfg.MaxSize}, cfg: cfg, alloc: alloc}
	o.limit = o.capacity()
	i, err := o.newIndex()
	if err != nil {
		return nil, fmt.Errorf("create the local cache: %w", err)
	}
	o.cache = i.cache
	o.index.Store(i)
	return o, nil
}

// spareSlabs is the number of shared slabs that may be held in addition to the cost of the entries: dead space
// below the compaction threshold, changes that have not been flushed, slabs that are being filled, and the
// compaction's backlog.
const spareSlabs = deadFloor + batchSlabs + 8

// capacity returns the most that all entries may cost, in bytes. A small store does not have room for
// spareSlabs.
func (o *Owner) capacity() int64 {
	return o.max - min(spareSlabs*int64(o.alloc.size), o.max/32) - o.idle()
}

// Bounds of the changes that are put before the owner waits until they are visible.
const (
	maxBatch   = 4096 // changes; ristretto drops a Set when its buffer of 32 Ki is full
	batchSlabs = 8    // bytes, in slabs; until a flush the store holds both old and new values
)

// Apply makes changes visible, in one batch that has each key once, and returns when they are.
func (o *Owner) Apply(epoch uint64, changes []Change) {
	o.Put(epoch, changes)
	o.flush()
}

// Put applies changes and does not wait until they are visible: the next Apply or FinishSnapshot does. Meanwhile
// ristretto processes them while the owner prepares more. A key may come twice in a batch if it comes with the same
// value.
func (o *Owner) Put(epoch uint64, changes []Change) {
	for batch := range slices.Chunk(changes, maxBatch) {
		o.flush()
		for _, c := range batch {
			o.pending = true
			o.change(epoch, c)
			if o.alloc.bytes()-o.flushedSize > int64(batchSlabs*o.alloc.size) {
				o.flush()
			}
		}
	}
}

// flush returns when everything that was put is visible.
func (o *Owner) flush() {
	if o.pending {
		o.cache.Wait()
		o.alloc.sweep()
		o.pending = false
	}
	o.compact()
	o.flushedSize = o.alloc.bytes()
	o.peak = max(o.peak, o.entries.Load())
	o.reindex()
	if limit := o.capacity(); limit != o.limit {
		// The capacity never falls by more than used has fallen: the cost of an entry that left was larger than
		// its share of the index.
		o.limit = limit
		o.cache.UpdateMaxCost(limit)
	}
}

func (o *Owner) change(epoch uint64, c Change) {
	o.scratch = append(o.scratch[:0], c.Key...)
	if !c.Present {
		if _, had := o.cache.Get(o.scratch); had {
			o.cache.Del(o.scratch)
		}
		return
	}
	r, cost := o.alloc.add(o.scratch, c.Value, c.Version, epoch, o.alloc.snapshot)
	if o.used.Load()+cost > o.limit {
		o.makeRoom(cost)
	}
	o.set(r, cost)
}

// makeRoom prepares for an entry of this cost, under the key in scratch, that may not fit.
func (o *Owner) makeRoom(cost int64) {
	old, had := o.cache.Get(o.scratch)
	var oldCost int64
	if had {
		oldCost = o.slabs.at(old).cost(old.offset())
	}
	if o.used.Load()+cost-oldCost <= o.limit {
		return
	}
	o.complete.Store(0)
	o.overflow = true
	if had && cost > oldCost {
		// ristretto charges only new keys against its limit, so a growing value is deleted and set as a new key.
		o.cache.Del(o.scratch)
		o.cache.Wait()
	}
}

// set puts r under the key in scratch.
func (o *Owner) set(r ref, cost int64) {
	o.used.Add(cost)
	o.entries.Add(1)
	for !o.cache.Set(o.scratch, r, cost) {
		o.cache.Wait() // the buffer was full and the Set was dropped
	}
}

// BeginSnapshot begins a snapshot: FinishSnapshot drops the entries that are not put again until then.
//
// With keepComplete, which requires an empty store, absences are answered from memory meanwhile.
func (o *Owner) BeginSnapshot(keepComplete bool) {
	if !keepComplete {
		o.complete.Store(0)
	}
	o.alloc.beginSnapshot()
	o.inSnapshot, o.overflow = true, false
}

// InSnapshot reports whether a snapshot has begun and not finished.
func (o *Owner) InSnapshot() bool { return o.inSnapshot }

// Overflowed reports whether the running or last snapshot did not fit.
func (o *Owner) Overflowed() bool { return o.overflow }

// FinishSnapshot drops the entries that the snapshot did not put, marks the set complete if all of it fits, and
// returns the number of dropped entries.
func (o *Owner) FinishSnapshot() (dropped int) {
	o.flush()
	var stale [][]byte
	if o.alloc.older() {
		o.cache.IterValues(func(r ref) bool {
			if sl := o.slabs.at(r); sl.snapshot < o.alloc.snapshot {
				stale = append(stale, sl.key(r.offset()))
			}
			return false
		})
	}
	for i, key := range stale { // collected first, because Del inside IterValues deadlocks
		o.cache.Del(key)
		if i%maxBatch == maxBatch-1 {
			o.cache.Wait()
		}
	}
	o.alloc.endMoved()
	o.inSnapshot, o.pending = false, true
	o.flush()
	if !o.overflow {
		o.complete.Store(o.alloc.snapshot)
	}
	return len(stale)
}

// MarkIncomplete keeps absences from being answered from memory until the next snapshot.
func (o *Owner) MarkIncomplete() { o.complete.Store(0) }

// Close makes every later Get miss, and ends the goroutines of the store once the running reads have ended. No
// method of the owner may be called after it.
func (o *Owner) Close() {
	o.complete.Store(0)
	if last := o.index.Swap(nil); last != nil {
		last.retire()
	}
}
