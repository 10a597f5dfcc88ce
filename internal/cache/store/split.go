package store

// maxSplits is the largest number of buckets that are split at once.
const maxSplits = 256

// grow splits buckets while there are too few for the entries.
func (o *Owner) grow() {
	for {
		// The splits end at the next power of two, so that no bucket is split twice.
		splits := min(max(1, o.count/16), maxSplits, 2*highestBit(o.count)-o.count)
		if o.bucketsFor(o.entries.Load()) < o.count+splits {
			return
		}
		if o.used.Load()+int64(splits)*blockSize > o.capacity(o.count+splits) {
			if splits = 1; !o.makeRoom() {
				return
			}
		}
		o.split(splits)
	}
}

// makeRoom makes room for one more bucket. It does not if everything has fitted.
func (o *Owner) makeRoom() bool {
	limit := o.capacity(o.count+1) - blockSize
	if o.used.Load() > limit && !o.overflow {
		return false
	}
	o.setLimit(limit)
	for n := uint32(0); n < o.count && o.used.Load() > o.limit; n++ {
		if o.at(n).Load() != nil { // ristretto evicts only for an item that it does not hold
			o.readmit(n, 0)
		}
	}
	return true
}

// setLimit changes the most that all entries may cost. What is queued fits below the last limit, so it must not be compared
// with the new one.
func (o *Owner) setLimit(limit int64) {
	o.wait()
	o.limit = limit
	o.current.cache.UpdateMaxCost(limit)
}

// split adds buckets, for which there is room. A Get finds each present key all the time: its slot is in the new bucket,
// which is in the table, before the count includes that; it leaves the old bucket after that; and a Get that does not find
// its key loads the count again. So a Get that used the old count and came too late to the old bucket repeats.
func (o *Owner) split(splits uint32) {
	o.setLimit(o.capacity(o.count + splits))
	before := o.count
	var blocks int64
	for range splits {
		n := o.count
		o.current.table.extend(n)
		o.told = append(o.told, 0)
		o.dirty = o.dirty.extend(n)
		o.count++
		bit := highestBit(n)
		parent := o.at(n - bit).Load()
		if parent == nil {
			continue // neither is held
		}
		half := newBuilder()
		parent.slots(func(_ slotAt, hash uint32, r ref) {
			if hash&bit != 0 {
				half.add(hash, r)
			}
		})
		o.at(n).Store(half.first)
		blocks += half.first.blocks()
	}
	o.countBlocks(blocks)
	if o.toldAll+blocks*blockSize > o.limit {
		o.syncCosts()
	}
	// Entries that are in two buckets would be dropped twice if one was evicted now. Some halves have more than the block for
	// which there is room.
	if excess := o.toldAll + blocks*blockSize - o.limit; excess > 0 {
		o.current.cache.UpdateMaxCost(o.limit + excess)
		defer o.current.cache.UpdateMaxCost(o.limit)
		defer o.wait()
	}
	for n := before; n < o.count; n++ {
		if o.at(n).Load() != nil {
			// Not admit: its syncCosts would count the entries of both halves, and so make ristretto evict.
			o.dirty.set(n)
			o.send(n, blockSize)
		}
	}
	o.current.count.Store(o.count)
	for n := before; n < o.count; n++ {
		o.halve(n-highestBit(n), highestBit(n))
	}
}

// halve removes the slots whose hash has this bit from bucket n.
func (o *Owner) halve(n, bit uint32) {
	first := o.at(n).Load()
	first.slots(func(at slotAt, hash uint32, _ ref) {
		if hash&bit != 0 {
			at.clear()
		}
	})
	if first != nil {
		o.dirty.set(n)
		o.shorten(n)
	}
}

// shorten replaces the blocks of bucket n by new ones if these are fewer. Slots never move within a bucket: a Get could look
// into the new slot before and into the old one after. A Get that has loaded the old blocks finds the entries there.
func (o *Owner) shorten(n uint32) {
	first := o.at(n).Load()
	if first == nil || first.next.Load() == nil {
		return
	}
	entries := int64(0)
	first.slots(func(slotAt, uint32, ref) { entries++ })
	blocks := first.blocks()
	if entries > (blocks-1)*blockSlots-blockSlots/4 {
		return // fewer would be full again soon
	}
	fresh := newBuilder()
	first.slots(func(_ slotAt, hash uint32, r ref) { fresh.add(hash, r) })
	o.at(n).Store(fresh.first)
	o.countBlocks(fresh.first.blocks() - blocks)
}
