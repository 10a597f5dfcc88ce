package store

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"sync/atomic"
)

// allocator adds entries to slabs and frees slabs. It belongs to the owner of the store.
type allocator struct {
	*slabTable

	size     int              // capacity of a shared slab, in bytes
	free     []slot           // indexes to reuse, oldest first, so that generations wrap late
	next     uint32           // first index that was never used
	snapshot uint64           // number of the running or last snapshot
	current  *slab            // shared slab that is being filled
	moved    map[uint64]*slab // shared slabs that are being filled with entries of earlier snapshots, by epoch
}

// slot is an index in the slab table with its next generation.
type slot struct {
	index      uint32
	generation uint16
}

// newAllocator returns an allocator whose shared slabs have size bytes, a power of two.
func newAllocator(size int) *allocator {
	table := make([]atomic.Pointer[slab], 64)
	t := new(slabTable)
	t.table.Store(&table)
	return &allocator{slabTable: t, size: size, next: 1, moved: make(map[uint64]*slab)} // index 0 is the zero ref
}

// add copies an entry into a slab and returns its place and its cost in bytes. An entry of an earlier snapshot goes
// into a slab of such entries, so that the entries to drop after a snapshot are found by their slabs.
func (a *allocator) add(key, value string, version, epoch, snapshot uint64) (ref, int64) {
	size := entryHeader + len(key) + len(value)
	target := a.current
	if snapshot < a.snapshot {
		target = a.moved[epoch]
	}
	switch {
	case size > a.size/packedShare:
		target = a.grow(size, true, epoch, snapshot)
	case target == nil || target.epoch != epoch || target.used+size > len(target.data):
		full := target
		target = a.grow(a.size, false, epoch, snapshot)
		if snapshot < a.snapshot {
			a.moved[epoch] = target
		} else {
			a.current = target
		}
		a.retire(full)
	}
	offset := target.used
	b := target.data[offset : offset+size]
	binary.BigEndian.PutUint64(b, version)
	binary.BigEndian.PutUint32(b[8:], uint32(len(value)))
	binary.BigEndian.PutUint16(b[12:], uint16(len(key)))
	copy(b[copy(b[entryHeader:], key)+entryHeader:], value)
	target.used += size
	target.live.Add(int64(size))
	d := a.digestAt(target, offset)
	target.put += d
	target.digest += d
	a.digest += d
	if !target.own {
		a.live.Add(int64(size))
	}
	return newRef(target.index, target.generation, offset), target.cost(offset)
}

// beginSnapshot makes the entries that are added from now on belong to the next snapshot.
func (a *allocator) beginSnapshot() {
	a.endCurrent()
	a.endMoved()
	a.snapshot++
}

// endCurrent stops filling the current slab.
func (a *allocator) endCurrent() {
	full := a.current
	a.current = nil
	a.retire(full)
}

// endMoved stops filling the slabs of moved entries.
func (a *allocator) endMoved() {
	full := slices.Collect(maps.Values(a.moved))
	clear(a.moved)
	for _, sl := range full {
		a.retire(sl)
	}
}

// retire frees a slab, or nil, that is not filled any more and has no live entry. Otherwise sweep frees it later.
func (a *allocator) retire(full *slab) {
	if full != nil && full.live.Load() == 0 {
		a.release(full) // every entry died while the slab was being filled, when sweep skipped it
	}
}

// isCurrent reports whether sl is being filled.
func (a *allocator) isCurrent(sl *slab) bool { return sl == a.current || sl == a.moved[sl.epoch] }

// grow adds a slab.
func (a *allocator) grow(size int, own bool, epoch, snapshot uint64) *slab {
	at := slot{index: a.next}
	if len(a.free) > 0 {
		at = a.free[0]
		a.free = a.free[1:]
	} else {
		a.next++
	}
	table := *a.table.Load()
	if int(at.index) >= len(table) {
		larger := make([]atomic.Pointer[slab], 2*len(table))
		for i := range table {
			larger[i].Store(table[i].Load())
		}
		table = larger
		a.table.Store(&larger)
	}
	// slices.Grow returns the whole allocation: the runtime rounds up to a size class, and above 32 KiB to
	// pages of 8 KiB.
	data := slices.Grow([]byte(nil), size)[:size]
	n := &slab{index: at.index, generation: at.generation, snapshot: snapshot, epoch: epoch, own: own, data: data}
	a.count(n, int64(cap(data)))
	table[at.index].Store(n)
	return n
}

// sweep frees the slabs that have no entry left.
func (a *allocator) sweep() {
	empty := a.empty
	a.empty = nil
	for _, sl := range empty {
		// A current slab is still being filled; retire checks it again. A slab is listed twice when it got new
		// entries in between.
		if !a.isCurrent(sl) && sl.live.Load() == 0 {
			a.release(sl)
		}
	}
}

// release frees sl. It does nothing when sl has been freed already.
func (a *allocator) release(sl *slab) {
	table := *a.table.Load()
	if table[sl.index].Load() != sl {
		return
	}
	table[sl.index].Store(nil)
	if sl.digest != 0 { // bytes have changed before their entry was replaced, removed or moved
		a.digest -= sl.digest
		if sl.snapshot == a.snapshot {
			a.damaged++ // a moved entry has the changed bytes; nothing else can find them any more
		}
	}
	if live := sl.live.Load(); live != 0 {
		a.miscount = true
		if !sl.own {
			a.slabTable.live.Add(-live)
		}
	}
	a.count(sl, -int64(cap(sl.data)))
	a.free = append(a.free, slot{index: sl.index, generation: sl.generation + 1})
}

// older reports whether there is a slab of a snapshot before the last one.
func (a *allocator) older() bool {
	table := *a.table.Load()
	for i := range table {
		if sl := table[i].Load(); sl != nil && sl.snapshot < a.snapshot {
			return true
		}
	}
	return false
}

// expire frees the slabs of earlier snapshots. No bucket refers to one any more, but damage may have hidden an entry from
// the index, or its size, so that the slab does not count as empty.
func (a *allocator) expire() {
	table := *a.table.Load()
	for i := range table {
		if sl := table[i].Load(); sl != nil && sl.snapshot < a.snapshot {
			a.release(sl)
		}
	}
}

// count adds bytes to the capacity of the slabs of the kind of sl.
func (a *allocator) count(sl *slab, bytes int64) {
	if sl.own {
		a.heldOwn.Add(bytes)
	} else {
		a.held.Add(bytes)
	}
}

// dead returns the bytes of the shared slabs that are neither live nor free for new entries.
func (a *allocator) dead() int64 {
	dead := a.held.Load() - a.live.Load()
	if a.current != nil {
		dead -= int64(len(a.current.data) - a.current.used)
	}
	return dead
}

// emptiest returns up to n shared slabs with the most dead bytes, the emptiest first. It omits slabs that are as full
// as any slab can be, except for the end into which no entry fits: moving their entries would reclaim nothing.
func (a *allocator) emptiest(n int) []*slab {
	type victim struct {
		slab *slab
		live int64
	}
	var victims []victim
	table := *a.table.Load()
	for i := range table {
		sl := table[i].Load()
		if sl == nil || sl.own || a.isCurrent(sl) {
			continue
		}
		if live := sl.live.Load(); live < int64(a.size-a.size/packedShare) {
			victims = append(victims, victim{sl, live})
		}
	}
	slices.SortFunc(victims, func(a, b victim) int { return cmp.Compare(a.live, b.live) })
	emptiest := make([]*slab, 0, n)
	for _, v := range victims[:min(n, len(victims))] {
		emptiest = append(emptiest, v.slab)
	}
	return emptiest
}
