package store

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Values live in slabs: arrays of up to a quarter of a mebibyte that are filled from front to back and
// never rewritten. The garbage collector then has thousands of objects to mark instead of
// millions (a full collection of a million values took 8 ms instead of 80-115 ms, and 20 MB less
// memory, because no value is rounded up to a size class), and it alone decides when a slab that
// readers may still be copying from goes away. The price is that space of replaced values has to
// be won back by moving what is still alive: see compact.
//
// An entry is: version (8), value length (4), key length (2), key, value.
const (
	minSlab     = 16 << 10  // size of a shared slab in a small store, in bytes
	maxSlab     = 256 << 10 // size of a shared slab in a large store, in bytes
	entryHeader = 14

	// packedShare is the number of the largest packed entries that fit into a shared slab. A larger
	// entry gets a slab of its own. The end of a shared slab, which no entry fits into, is therefore
	// smaller than 1/packedShare of the slab, half of what compaction leaves dead.
	packedShare = 2 * deadShare
	// ownOverhead is what a slab of its own costs an entry beside the array, in bytes: the slab
	// struct and its place in the table, which doubles when it grows.
	ownOverhead = 128
)

// slabSizeFor returns the size of the shared slabs of a store of max bytes: a power of two, about a
// thousandth of the store, so that partly filled slabs are negligible.
func slabSizeFor(max int64) int {
	size := minSlab
	for size < maxSlab && int64(size)*2 <= max/1024 {
		size *= 2
	}
	return size
}

// ref is the place of an entry: 24 bits index into the slab table, 16 bits generation of that
// index, 24 bits offset in the slab. Zero is no entry.
type ref uint64

func newRef(index uint32, generation uint16, offset int) ref {
	return ref(index)<<40 | ref(generation)<<24 | ref(offset)
}

func (r ref) index() uint32      { return uint32(r >> 40) }
func (r ref) generation() uint16 { return uint16(r >> 24) }
func (r ref) offset() int        { return int(r & (1<<24 - 1)) }

type slab struct {
	index      uint32
	generation uint16
	snapshot   uint64       // number of the load that wrote its entries, or after which they were written; less for what moved
	epoch      uint64       // of all its entries
	own        bool         // it belongs to one entry that is too large to share a slab
	data       []byte       // written by the owner of the slabs only, and only past used
	used       int          // bytes of entries, dead ones included; the owner's
	live       atomic.Int64 // bytes of entries that have not left
}

// slabs is the memory behind the entries. One goroutine, the owner, adds and frees; any goroutine
// reads.
type slabs struct {
	size     int // capacity of a shared slab, in bytes
	table    atomic.Pointer[[]atomic.Pointer[slab]]
	free     []slot // indexes to use again, oldest first, so that generations wrap late
	next     uint32
	snapshot uint64           // number of the load that runs or ran last; the owner's
	current  *slab            // being filled; the owner's
	moved    map[uint64]*slab // being filled with what moves of earlier loads, by epoch; the owner's
	held     atomic.Int64     // capacity of the shared slabs, in bytes; only the owner changes it
	live     atomic.Int64     // bytes that live entries take of the shared slabs
	heldOwn  atomic.Int64     // capacity of the slabs with one entry, as the runtime rounds it, in bytes; only the owner changes it

	// mu guards empty: slabs whose last entry went away. Entries also die in ristretto's own
	// goroutine, the owner takes the slabs from here.
	mu    sync.Mutex
	empty []*slab
}

type slot struct {
	index      uint32
	generation uint16
}

// newSlabs returns slabs of which the shared ones have size bytes, a power of two.
func newSlabs(size int) *slabs {
	s := &slabs{size: size, next: 1, moved: make(map[uint64]*slab)} // index 0 is the zero ref
	table := make([]atomic.Pointer[slab], 64)
	s.table.Store(&table)
	return s
}

// add copies an entry into the slabs and returns its place and its cost in bytes. An entry of an
// earlier load than the last one stays apart from what that has written.
func (s *slabs) add(key []byte, value string, version, epoch, load uint64) (ref, int64) {
	size := entryHeader + len(key) + len(value)
	target := s.current
	if load < s.snapshot {
		target = s.moved[epoch]
	}
	switch {
	case size > s.size/packedShare:
		target = s.grow(size, true, epoch, load)
	case target == nil || target.epoch != epoch || target.used+size > len(target.data):
		full := target
		target = s.grow(s.size, false, epoch, load)
		if load < s.snapshot {
			s.moved[epoch] = target
		} else {
			s.current = target
		}
		s.retire(full)
	}
	offset := target.used
	b := target.data[offset : offset+size]
	binary.BigEndian.PutUint64(b, version)
	binary.BigEndian.PutUint32(b[8:], uint32(len(value)))
	binary.BigEndian.PutUint16(b[12:], uint16(len(key)))
	copy(b[copy(b[entryHeader:], key)+entryHeader:], value)
	target.used += size
	target.live.Add(int64(size))
	if !target.own {
		s.live.Add(int64(size))
	}
	return newRef(target.index, target.generation, offset), target.cost(offset)
}

// beginSnapshot makes what is added from here on belong to the next load.
func (s *slabs) beginSnapshot() {
	s.endCurrent()
	s.endMoved()
	s.snapshot++
}

// endCurrent ends the filling of the current slab.
func (s *slabs) endCurrent() {
	full := s.current
	s.current = nil
	s.retire(full)
}

// endMoved ends the filling of the slabs of what moved.
func (s *slabs) endMoved() {
	full := slices.Collect(maps.Values(s.moved))
	clear(s.moved)
	for _, sl := range full {
		s.retire(sl)
	}
}

// retire looks after a slab, or nil, that is not filled any more.
func (s *slabs) retire(full *slab) {
	if full != nil && full.live.Load() == 0 {
		s.release(full) // every entry died while it was being filled
	}
}

func (s *slabs) isCurrent(sl *slab) bool { return sl == s.current || sl == s.moved[sl.epoch] }

func (s *slabs) grow(size int, own bool, epoch, load uint64) *slab {
	at := slot{index: s.next}
	if len(s.free) > 0 {
		at = s.free[0]
		s.free = s.free[1:]
	} else {
		s.next++
	}
	table := *s.table.Load()
	if int(at.index) >= len(table) {
		larger := make([]atomic.Pointer[slab], 2*len(table))
		for i := range table {
			larger[i].Store(table[i].Load())
		}
		table = larger
		s.table.Store(&larger)
	}
	// Grow returns the whole allocation: the runtime rounds up to a size class, and what is larger than
	// 32 KiB to pages of 8 KiB.
	data := slices.Grow([]byte(nil), size)[:size]
	n := &slab{index: at.index, generation: at.generation, snapshot: load, epoch: epoch, own: own, data: data}
	s.count(n, int64(cap(data)))
	table[at.index].Store(n)
	return n
}

// at returns the slab of r, or nil when it was freed: the entry has been replaced or moved since r
// was looked up.
func (s *slabs) at(r ref) *slab {
	table := *s.table.Load()
	if int(r.index()) >= len(table) {
		return nil
	}
	if sl := table[r.index()].Load(); sl != nil && sl.generation == r.generation() {
		return sl
	}
	return nil
}

// entry returns the entry at offset. Its value is a view of the slab: immutable, because a slab is
// never rewritten, and kept alive by the garbage collector as long as anybody holds it.
func (sl *slab) entry(offset int) Entry {
	b := sl.data[offset:]
	keyLen := int(binary.BigEndian.Uint16(b[12:]))
	valueLen := int(binary.BigEndian.Uint32(b[8:]))
	e := Entry{Epoch: sl.epoch, Version: binary.BigEndian.Uint64(b)}
	if valueLen > 0 {
		e.Value = unsafe.String(&b[entryHeader+keyLen], valueLen)
	}
	return e
}

func (sl *slab) key(offset int) []byte {
	b := sl.data[offset:]
	return b[entryHeader : entryHeader+int(binary.BigEndian.Uint16(b[12:]))]
}

// cost returns the most memory that the entry at offset accounts for, in bytes: what it takes, its share
// of the space that compaction leaves dead, and its share of the index.
func (sl *slab) cost(offset int) int64 {
	if sl.own {
		return int64(cap(sl.data)) + ownOverhead + indexCharge
	}
	size := int64(sl.size(offset))
	return size + size/deadShare + indexCharge
}

func (sl *slab) size(offset int) int {
	b := sl.data[offset:]
	return entryHeader + int(binary.BigEndian.Uint16(b[12:])) + int(binary.BigEndian.Uint32(b[8:]))
}

// drop counts the entry at r as dead and returns its cost. Any goroutine may call it, once for an
// entry.
func (s *slabs) drop(r ref) (cost int64) {
	sl := s.at(r)
	size := int64(sl.size(r.offset()))
	if !sl.own {
		s.live.Add(-size)
	}
	if sl.live.Add(-size) == 0 {
		s.mu.Lock()
		s.empty = append(s.empty, sl)
		s.mu.Unlock()
	}
	return sl.cost(r.offset())
}

// sweep frees the slabs that have no entry left.
func (s *slabs) sweep() {
	s.mu.Lock()
	empty := s.empty
	s.empty = nil
	s.mu.Unlock()
	for _, sl := range empty {
		// A current slab is still being filled; retire looks at it again. A slab can be listed
		// twice when it was refilled in between.
		if !s.isCurrent(sl) && sl.live.Load() == 0 {
			s.release(sl)
		}
	}
}

func (s *slabs) release(sl *slab) {
	table := *s.table.Load()
	if table[sl.index].Load() != sl {
		return
	}
	table[sl.index].Store(nil)
	s.count(sl, -int64(cap(sl.data)))
	s.free = append(s.free, slot{index: sl.index, generation: sl.generation + 1})
}

// older reports whether there is a slab of a load before the last one.
func (s *slabs) older() bool {
	table := *s.table.Load()
	for i := range table {
		if sl := table[i].Load(); sl != nil && sl.snapshot < s.snapshot {
			return true
		}
	}
	return false
}

// count adds to the capacity of the slabs that are like sl.
func (s *slabs) count(sl *slab, bytes int64) {
	if sl.own {
		s.heldOwn.Add(bytes)
	} else {
		s.held.Add(bytes)
	}
}

// bytes returns the capacity of all slabs, in bytes. Any goroutine may call it.
func (s *slabs) bytes() int64 { return s.held.Load() + s.heldOwn.Load() }

// dead returns the bytes of the shared slabs that are neither live nor free for new entries.
func (s *slabs) dead() int64 {
	dead := s.held.Load() - s.live.Load()
	if s.current != nil {
		dead -= int64(len(s.current.data) - s.current.used)
	}
	return dead
}

// emptiest returns the n slabs with the most dead bytes, or fewer, the emptiest first. It leaves out
// slabs that have lost less than the end that may stay empty in any slab: moving would gain nothing.
func (s *slabs) emptiest(n int) []*slab {
	type victim struct {
		slab *slab
		live int64
	}
	var victims []victim
	table := *s.table.Load()
	for i := range table {
		sl := table[i].Load()
		if sl == nil || sl.own || s.isCurrent(sl) {
			continue
		}
		if live := sl.live.Load(); live < int64(s.size-s.size/packedShare) {
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
