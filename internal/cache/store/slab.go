package store

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Entries live in slabs: arrays of up to a quarter of a mebibyte that are filled from front to back and never
// rewritten. The garbage collector marks thousands of objects instead of millions (a full collection of a million
// values took 8 ms instead of 80-115 ms, and 20 MB less memory, because no value is rounded up to a size class),
// and it frees a slab only after the last reader has copied from it. The price is compaction: the live entries of
// a slab have to move before the space of the dead ones can be reclaimed.
//
// An entry is: version (8), value length (4), key length (2), key, value.
const (
	minSlab     = 16 << 10  // size of a shared slab in a small store, in bytes
	maxSlab     = 256 << 10 // size of a shared slab in a large store, in bytes
	entryHeader = 14

	// An entry above 1/packedShare of a shared slab gets a slab of its own. So the unused end of a shared slab is
	// smaller than that, half of what compaction leaves dead.
	packedShare = 2 * deadShare
	// ownOverhead is the cost of an own slab beside its array, in bytes: the slab struct and its place in the
	// table, which doubles when it grows.
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

// ref is the place of an entry: index in the slab table (24 bits), generation of that index (16 bits), offset in
// the slab (24 bits). The zero ref is no entry.
type ref uint64

func newRef(index uint32, generation uint16, offset int) ref {
	return ref(index)<<40 | ref(generation)<<24 | ref(offset)
}

func (r ref) index() uint32      { return uint32(r >> 40) }
func (r ref) generation() uint16 { return uint16(r >> 24) }
func (r ref) offset() int        { return int(r & (1<<24 - 1)) }

// slab is an array of entries.
type slab struct {
	index      uint32
	generation uint16
	snapshot   uint64       // number of the last snapshot when its entries were put; moved entries keep theirs
	epoch      uint64       // epoch of all its entries
	own        bool         // holds one entry that is too large for a shared slab
	data       []byte       // written by the allocator only, and only past used
	used       int          // bytes of entries, dead ones included; for the owner alone
	put        uint64       // sum of the digests of all entries, dead ones included; for the owner alone
	live       atomic.Int64 // bytes of entries that have not left
	digest     uint64       // sum of the digests of the entries that have not left; used like slabTable.empty
}

// entry returns the entry at offset. Its value is a view of the slab: immutable, because a slab is never
// rewritten, and kept alive by the garbage collector while it is referenced.
func (sl *slab) entry(offset int) Entry {
	b := sl.data[offset:]
	keyLen := int(binary.BigEndian.Uint16(b[12:]))
	valueLen := int(binary.BigEndian.Uint32(b[8:]))
	e := Entry{Epoch: sl.epoch, Version: binary.BigEndian.Uint64(b)}
	if valueLen > 0 {
		value := b[entryHeader+keyLen : entryHeader+keyLen+valueLen] // checks the bounds, which unsafe.String does not
		e.Value = unsafe.String(unsafe.SliceData(value), valueLen)
	}
	return e
}

func (sl *slab) version(offset int) uint64 { return binary.BigEndian.Uint64(sl.data[offset:]) }

// valid reports whether an entry at offset ends within the slab. It does, unless its lengths are damaged.
func (sl *slab) valid(offset int) bool {
	return offset+entryHeader <= len(sl.data) && offset+sl.size(offset) <= len(sl.data)
}

func (sl *slab) key(offset int) []byte {
	b := sl.data[offset:]
	return b[entryHeader : entryHeader+int(binary.BigEndian.Uint16(b[12:]))]
}

// cost returns the most memory that the entry at offset accounts for, in bytes: its size, its share of the space
// that compaction leaves dead. Its slot is part of the cost of a block.
func (sl *slab) cost(offset int) int64 {
	if sl.own {
		return int64(cap(sl.data)) + ownOverhead
	}
	size := int64(sl.size(offset))
	return size + size/deadShare
}

func (sl *slab) size(offset int) int {
	b := sl.data[offset:]
	return entryHeader + int(binary.BigEndian.Uint16(b[12:])) + int(binary.BigEndian.Uint32(b[8:]))
}

// slabTable finds slabs and counts their bytes. Any goroutine may call its methods; only the allocator adds and
// removes slabs.
type slabTable struct {
	table   atomic.Pointer[[]atomic.Pointer[slab]]
	held    atomic.Int64 // capacity of the shared slabs, in bytes
	live    atomic.Int64 // bytes of the live entries in shared slabs
	heldOwn atomic.Int64 // capacity of the own slabs, as the runtime rounds it, in bytes

	checksums bool   // values are checksums, see Config
	digest    uint64 // sum of the digests of the live entries, minus what damage has changed since; used like empty
	damaged   int    // slabs that were freed and whose bytes had changed, since the last scrub; used like empty
	miscount  bool   // damage has made the counts of the store wrong, until the end of the next snapshot; used like empty

	empty []*slab // slabs without live entries, to be freed; for the owner and, while it waits, ristretto's goroutine
}

// at returns the slab of r, or nil when it was freed because the entry has been replaced or moved.
func (s *slabTable) at(r ref) *slab {
	table := *s.table.Load()
	if int(r.index()) >= len(table) {
		return nil
	}
	if sl := table[r.index()].Load(); sl != nil && sl.generation == r.generation() {
		return sl
	}
	return nil
}

// hasKey reports whether the entry at r has this key. A damaged one has none.
func (s *slabTable) hasKey(r ref, key string) bool {
	sl := s.at(r)
	return sl != nil && sl.valid(r.offset()) && string(sl.key(r.offset())) == key
}

// drop counts the entry at r as dead and returns its cost. It is called once for an entry.
func (s *slabTable) drop(r ref) (cost int64) {
	sl := s.at(r)
	if sl == nil || !sl.valid(r.offset()) {
		s.miscount = true // the slab stays in use until a snapshot has replaced its entries
		return 0
	}
	size := int64(sl.size(r.offset()))
	d := s.digestAt(sl, r.offset())
	sl.digest -= d
	s.digest -= d
	if !sl.own {
		s.live.Add(-size)
	}
	if sl.live.Add(-size) == 0 {
		s.empty = append(s.empty, sl)
	}
	return sl.cost(r.offset())
}

// cost returns the cost of the entry at r, or 0 if its place or its lengths are damaged.
func (s *slabTable) cost(r ref) int64 {
	sl := s.at(r)
	if sl == nil || !sl.valid(r.offset()) {
		return 0
	}
	return sl.cost(r.offset())
}

// bytes returns the capacity of all slabs, in bytes.
func (s *slabTable) bytes() int64 { return s.held.Load() + s.heldOwn.Load() }
