package store

import (
	"runtime"
	"unsafe"
)

// PrefetchMax is the largest number of keys that Prefetch accepts.
const PrefetchMax = 16

// cacheLine is the size of a line of the processor's caches, in bytes.
const cacheLine = 64

// entryLines is the number of lines of an entry that Prefetch loads. The processor detects a sequential copy and loads the
// others itself.
const entryLines = 4

// Prefetch has the processor load what a Get of each key will read, for all keys at the same time, and does not wait for it.
// A look-up among a million entries waits for memory three times, one after the other, because each place is read from the
// one before. A caller that knows its next keys calls Prefetch first. Keys that are not in memory cost little. Prefetch
// allocates nothing, takes no lock, and does not keep keys, of which there may be at most PrefetchMax.
func (s *Store) Prefetch(keys [][]byte) {
	index := s.index.Load()
	if index == nil {
		return
	}
	var hashes, numbers [PrefetchMax]uint32
	count := index.count.Load()
	for i, key := range keys {
		hashes[i] = s.hash(key)
		numbers[i] = bucketOf(hashes[i], count)
		prefetch(unsafe.Pointer(index.table.at(numbers[i])))
	}
	for i := range keys {
		if b := index.table.at(numbers[i]).Load(); b != nil {
			prefetch(unsafe.Pointer(&b.hashes))
			prefetch(unsafe.Pointer(&b.refs[home(hashes[i])]))
		}
	}
	for i := range keys {
		b := index.table.at(numbers[i]).Load()
		if b == nil {
			continue
		}
		at := home(hashes[i])
		for range blockSlots {
			if b.hashes[at].Load() == hashes[i] {
				s.slabs.prefetch(ref(b.refs[at].Load()))
				break
			}
			at = following(at)
		}
	}
	runtime.KeepAlive(index) // see index.retire
}

// prefetch has the processor load the first lines of the entry at r, which may have been freed.
func (s *slabTable) prefetch(r ref) {
	sl := s.at(r)
	if sl == nil || r.offset() >= len(sl.data) {
		return
	}
	data := sl.data[r.offset():]
	for i := 0; i < min(len(data), entryLines*cacheLine); i += cacheLine {
		prefetch(unsafe.Pointer(&data[i]))
	}
}
