package store

import (
	"fmt"
	"hash/maphash"
	"sync/atomic"
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

	cfg        Config
	alloc      *allocator
	current    *index  // the index, which reads may not use yet; nil once the store is closed
	generation uint64  // number of the last index
	count      uint32  // buckets of the index, those included that reads do not know yet
	told       []int64 // cost of each bucket that ristretto knows, in bytes; 0 for a bucket that it does not hold
	toldAll    int64   // sum of told
	dirty      bitmap  // buckets whose cost may differ from told
	queued     int     // changes that ristretto may not have processed

	inSnapshot  bool
	overflow    bool  // the running or last snapshot did not fit
	compacted   int64 // dead bytes that the last compaction left
	limit       int64 // most that used may come to, in bytes; ristretto's MaxCost
	flushedSize int64 // bytes that the slabs held after the last flush
	scrubbed    int   // index of the next slab to scrub

	checksum [checksumSize]byte // scratch space of stored
}

// New returns the owner of an empty store. The configuration must be complete, as WithDefaults returns it.
func New(cfg Config) (*Owner, error) {
	alloc := newAllocator(slabSizeFor(cfg.MaxSize))
	s := &Store{slabs: alloc.slabTable, max: cfg.MaxSize, seed: maphash.MakeSeed()}
	o := &Owner{Store: s, cfg: cfg, alloc: alloc, count: 1, told: make([]int64, 1), dirty: newBitmap(1)}
	o.slabs.checksums = cfg.Checksums
	o.limit = o.capacity(1)
	i, err := o.newIndex(1)
	if err != nil {
		return nil, fmt.Errorf("create the local cache: %w", err)
	}
	o.current = i
	o.index.Store(i)
	return o, nil
}

// spareSlabs is the number of shared slabs that may be held in addition to the cost of the entries: dead space
// below the compaction threshold, changes that have not been flushed, slabs that are being filled, and the
// compaction's backlog.
const spareSlabs = deadFloor + batchSlabs + 8

// capacity returns the most that all entries may cost in a store of this many buckets, in bytes. A small store does not
// have room for spareSlabs.
func (o *Owner) capacity(buckets uint32) int64 {
	return o.max - min(spareSlabs*int64(o.alloc.size), o.max/32) - bucketCharge*int64(buckets)
}

// batchSlabs bounds the changes between two flushes, in slabs: until a flush the store holds both old and new values.
const batchSlabs = 8

// Apply makes changes, in their order. They are visible when it returns.
func (o *Owner) Apply(epoch uint64, changes []Change) {
	o.Put(epoch, changes)
	o.flush()
}

// Put is Apply for one of many batches: what the changes replace is not reclaimed after each batch, but when it is enough
// or with the next Apply or FinishSnapshot.
func (o *Owner) Put(epoch uint64, changes []Change) {
	for i := range changes {
		o.change(epoch, &changes[i])
		if o.alloc.bytes()-o.flushedSize > int64(batchSlabs*o.alloc.size) {
			o.flush()
		}
	}
}

// flush reclaims the memory of entries that have left.
func (o *Owner) flush() {
	o.alloc.sweep()
	o.compact()
	o.flushedSize = o.alloc.bytes()
	o.reindex()
}

// at returns the place of the first block of bucket n.
func (o *Owner) at(n uint32) *atomic.Pointer[block] { return o.current.table.at(n) }

func (o *Owner) change(epoch uint64, c *Change) {
	hash := o.hashString(c.Key)
	n := bucketOf(hash, o.count)
	at, free := o.find(o.at(n).Load(), hash, c.Key)
	if !c.Present {
		if at.block != nil {
			o.remove(n, at)
		}
		return
	}

	r, cost := o.alloc.add(c.Key, o.stored(c.Value), c.Version, epoch, o.alloc.snapshot)
	var old ref
	var oldCost int64
	if at.block != nil {
		old = at.ref()
		oldCost = o.slabs.cost(old)
	} else if free.block == nil {
		oldCost = -blockSize
	}
	fits := cost <= oldCost || o.used.Load()+cost-oldCost <= o.limit
	if !fits {
		o.complete.Store(0) // before anything can vanish
	}
	o.used.Add(cost)
	o.entries.Add(1)
	isNew := o.at(n).Load() == nil
	if at.block != nil {
		at.replace(r)
		o.drop(old)
	} else {
		o.insert(n, free, hash, r)
	}
	switch {
	case !fits:
		o.readmit(n, r)
	case isNew:
		o.admit(n, blockSize)
	default:
		o.dirty.set(n)
	}
	if at.block == nil {
		o.grow()
	}
}

// find returns the slot of a key in the bucket that begins with b, or else its first free slot. Neither has a block if
// there is none.
func (o *Owner) find(b *block, hash uint32, key string) (at, free slotAt) {
	for ; b != nil; b = b.next.Load() {
		for k, i := 0, home(hash); k < blockSlots; k, i = k+1, following(i) {
			switch r := ref(b.refs[i].Load()); {
			case r == 0:
				if free.block == nil {
					free = slotAt{b, i}
				}
			case b.hashes[i].Load() == hash && o.slabs.hasKey(r, key):
				return slotAt{b, i}, free
			}
		}
	}
	return at, free
}

// insert puts an entry into a free slot of bucket n. If there is none, it adds a block.
func (o *Owner) insert(n uint32, free slotAt, hash uint32, r ref) {
	if free.block != nil {
		free.fill(hash, r)
		return
	}
	added := newBuilder()
	added.add(hash, r)
	end := o.at(n)
	for last := end.Load(); last != nil; last = end.Load() {
		end = &last.next
	}
	end.Store(added.first)
	o.countBlocks(1)
}

// remove removes the entry in a slot of bucket n.
func (o *Owner) remove(n uint32, at slotAt) {
	old := at.ref()
	at.clear()
	o.drop(old)
	o.dirty.set(n)
	o.shorten(n)
}

// drop counts the entry at r, which no bucket has any more, as dead.
func (o *Owner) drop(r ref) {
	o.entries.Add(-1)
	o.used.Add(-o.slabs.drop(r))
}

// countBlocks counts blocks that are added, or removed if n is negative.
func (o *Owner) countBlocks(n int64) {
	o.blocks.Add(n)
	o.used.Add(n * blockSize)
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
	if o.alloc.older() {
		for n := range o.count {
			before := dropped
			first := o.at(n).Load()
			first.slots(func(at slotAt, _ uint32, r ref) {
				if sl := o.slabs.at(r); sl == nil || sl.snapshot < o.alloc.snapshot {
					at.clear()
					o.drop(r)
					dropped++
				}
			})
			if dropped > before {
				o.dirty.set(n)
				o.shorten(n)
			}
		}
	}
	o.alloc.endMoved()
	o.alloc.expire()
	if o.slabs.miscount {
		o.recount()
	}
	o.inSnapshot = false
	o.flush()
	if !o.overflow {
		o.complete.Store(o.alloc.snapshot)
	}
	return dropped
}

// recount counts the entries, the blocks and their cost again.
func (o *Owner) recount() {
	var entries, blocks, used int64
	for n := range o.count {
		first := o.at(n).Load()
		first.slots(func(slotAt, uint32, ref) { entries++ })
		blocks += first.blocks()
		used += o.cost(n)
	}
	o.entries.Store(entries)
	o.blocks.Store(blocks)
	o.used.Store(used)
	o.slabs.miscount = false
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
	o.current = nil
}
