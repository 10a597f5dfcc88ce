package store

import "unsafe"

// Compaction starts when the dead bytes of the shared slabs exceed 1/deadShare of the live ones by more than
// deadFloor slabs. A smaller share saves memory and moves more bytes for each byte that is replaced.
const (
	deadShare = 16
	deadFloor = 8
)

// excess returns the dead bytes above the compaction threshold.
func (o *Owner) excess() int64 {
	return o.alloc.dead() - o.alloc.live.Load()/deadShare - int64(deadFloor*o.alloc.size)
}

// maxVictims bounds the slabs that one compaction empties, and so the time that a batch waits for it.
const maxVictims = 8 * batchSlabs

// compact moves the live entries of the emptiest slabs together while there are too many dead bytes. The number of
// slabs is proportional to the bytes that died since the last compaction; the backlog is reduced slowly.
func (o *Owner) compact() {
	if excess := o.excess(); excess > 0 {
		died := max(0, o.alloc.dead()-o.compacted)
		victims := 2 + (8*died+excess/16)/int64(o.alloc.size)
		for _, victim := range o.alloc.emptiest(int(min(victims, maxVictims))) {
			o.evacuate(victim)
			if o.excess() <= 0 {
				break
			}
		}
	}
	o.compacted = o.alloc.dead()
}

// evacuate copies the live entries of sl into other slabs and frees sl.
func (o *Owner) evacuate(sl *slab) {
	for offset := 0; offset < sl.used && sl.valid(offset); offset += sl.size(offset) {
		key, r := sl.key(offset), newRef(sl.index, sl.generation, offset)
		hash := o.hash(key)
		at := o.at(bucketOf(hash, o.count)).Load().find(hash, r)
		if at.block == nil {
			continue // replaced or removed
		}
		e := sl.entry(offset)
		moved, _ := o.alloc.add(unsafe.String(unsafe.SliceData(key), len(key)), e.Value, e.Version, e.Epoch, sl.snapshot)
		at.replace(moved)
		o.slabs.drop(r)
	}
	o.alloc.sweep()
}
