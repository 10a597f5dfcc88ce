package store

import (
	"runtime"
	"slices"
)

// Buckets returns the number of buckets into which the entries are divided, and the number of the index that has them. The
// second is 0 once the store is closed.
//
// A walk that calls Visit for the buckets from 0 until Buckets shows no more visits each key that is present all the time
// at least once, although entries move to other buckets: they only ever move to higher ones. When the number of the index
// changes, the walk has to begin again.
func (s *Store) Buckets() (count int, index uint64) {
	if i := s.index.Load(); i != nil {
		return int(i.count.Load()), i.generation
	}
	return 0, 0
}

// Visit calls visit for the entries of bucket n until that returns false. It may repeat an entry, with the same or another
// version, and show one that has just been removed. The key and the value are views that are never changed and must not be
// changed. Any goroutine may call it. It does not block the owner or reads, and is no access to the entries for the
// admission policy.
//
// It returns false if an entry could not be shown because its place in the index, or its lengths, are damaged.
func (s *Store) Visit(n int, visit func(key []byte, e Entry) bool) (whole bool) {
	var freed []ref // places whose slab had been freed when they were loaded
	for moved := true; moved; {
		i := s.index.Load()
		if i == nil || n >= int(i.count.Load()) {
			return true
		}
		moved, whole = false, true
		for b := i.table.at(uint32(n)).Load(); b != nil && !moved; b = b.next.Load() {
			for at := range b.refs {
				r := ref(b.refs[at].Load())
				if r == 0 {
					continue
				}
				sl := s.slabs.at(r)
				switch {
				case sl == nil && !slices.Contains(freed, r):
					freed, moved = append(freed, r), true // after the load of its place: visit the bucket again
				case sl == nil || !sl.valid(r.offset()):
					whole = false // an index that is loaded after a slab was freed has no place in it
				case !visit(sl.key(r.offset()), sl.entry(r.offset())):
					return whole
				}
				if moved {
					break
				}
			}
		}
		runtime.KeepAlive(i)
	}
	return whole
}
