package store

import (
	"math/bits"

	"github.com/dgraph-io/ristretto/v2"
)

// ristretto evicts only when an item is added that it does not hold, and when the sum of the costs that it was told is too
// large. So the owner tells it the cost of a bucket only before it may have to evict: while everything fits, updates,
// inserts, deletes and moves do not involve ristretto at all, and the buckets whose cost has changed are marked as dirty.
//
// The owner waits until ristretto has processed an item that may not fit, so ristretto evicts only while nothing else changes.
// And it waits for a new item before it sets that again: ristretto refuses the second of two quick Sets of a new item.

// maxQueued is the number of changes that ristretto may have queued. It drops a change when its buffer of 32 Ki is full.
const maxQueued = 8 << 10

// wait returns when ristretto has processed all changes.
func (o *Owner) wait() {
	if o.queued > 0 {
		o.current.cache.Wait()
		o.queued = 0
	}
}

// send passes the cost of bucket n to ristretto.
func (o *Owner) send(n uint32, cost int64) {
	if o.queued++; o.queued > maxQueued {
		o.wait()
		o.queued = 1
	}
	o.toldAll += cost - o.told[n]
	o.told[n] = cost
	o.current.cache.Set(n, struct{}{}, cost)
}

// admit passes bucket n to ristretto, which does not hold it and has room for it. Its cost may be too low: it is marked as
// dirty.
func (o *Owner) admit(n uint32, cost int64) {
	o.dirty.set(n)
	if o.toldAll+cost > o.limit {
		o.syncCosts() // deleted entries, of which ristretto does not know
	}
	o.send(n, cost)
}

// syncCosts passes the costs of all dirty buckets that ristretto holds to it. Afterwards, the sum of these costs is used.
func (o *Owner) syncCosts() {
	o.wait()
	for w, word := range o.dirty {
		o.dirty[w] = 0
		for ; word != 0; word &= word - 1 {
			n := uint32(w)<<6 | uint32(bits.TrailingZeros64(word))
			if o.told[n] == 0 {
				o.dirty.set(n) // about to be admitted
			} else if cost := o.cost(n); cost != o.told[n] {
				o.send(n, cost)
			}
		}
	}
}

// cost returns the most memory that a bucket accounts for, in bytes.
func (o *Owner) cost(n uint32) int64 {
	first := o.at(n).Load()
	cost := blockSize * first.blocks()
	first.slots(func(_ slotAt, _ uint32, r ref) { cost += o.slabs.cost(r) })
	return cost
}

// readmit makes room for bucket n, to which the entry at r was added and which does not fit: it is put as a new item, so
// that ristretto evicts other buckets, or this one. The caller has cleared complete.
func (o *Owner) readmit(n uint32, r ref) {
	o.wait()
	o.overflow = true
	first, cost := o.at(n).Load(), o.cost(n)
	// Large entries leave room for few buckets, and one of many such entries might not fit even alone.
	if cost > o.limit/2 {
		kept := newBuilder()
		first.slots(func(_ slotAt, hash uint32, other ref) {
			if other != r && cost > o.limit/2 {
				cost -= o.slabs.cost(other)
				o.drop(other)
				o.evictions.Add(1)
			} else {
				kept.add(hash, other)
			}
		})
		blocks := kept.first.blocks() - first.blocks()
		cost += blocks * blockSize
		o.countBlocks(blocks)
		o.at(n).Store(kept.first)
	}
	if o.told[n] != 0 {
		o.current.cache.Del(n)
		o.queued++
		o.toldAll -= o.told[n]
		o.told[n] = 0
	}
	o.syncCosts()
	o.dirty.clear(n)
	o.send(n, cost)
	o.wait()
}

// leave accounts for a bucket that was evicted or refused, and returns the number of its entries. ristretto's goroutine
// calls it while the owner waits.
func (o *Owner) leave(i *ristretto.Item[struct{}]) (entries uint64) {
	n := uint32(i.Key)
	first := o.at(n).Load()
	first.slots(func(_ slotAt, _ uint32, r ref) {
		o.drop(r)
		entries++
	})
	o.countBlocks(-first.blocks())
	o.at(n).Store(nil)
	o.toldAll -= o.told[n]
	o.told[n] = 0
	o.dirty.clear(n)
	return entries
}

// bitmap is a set of numbers of buckets.
type bitmap []uint64

func newBitmap(count uint32) bitmap { return make(bitmap, (count+63)/64) }

func (b bitmap) set(n uint32)   { b[n>>6] |= 1 << (n & 63) }
func (b bitmap) clear(n uint32) { b[n>>6] &^= 1 << (n & 63) }

// extend returns b with room for n.
func (b bitmap) extend(n uint32) bitmap {
	if int(n>>6) == len(b) {
		return append(b, 0)
	}
	return b
}
