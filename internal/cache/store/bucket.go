package store

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// blockSlots is the number of slots of a block. With 15, a block takes three cache lines and is a size class of the Go
// runtime: one line of hashes, two of places.
const blockSlots = 15

// block is a part of a bucket: slots that each hold the hash of a key and the place of its entry. A slot whose ref is 0 is
// free. A search compares the key in the entry too. So keys with equal hashes are distinguished, and it is harmless if the
// owner reuses a slot after a reader has loaded its hash and before the reader loads its ref.
//
// Only the owner changes a block, in place. Readers that hold a block that has left the index see the state in which it left.
type block struct {
	hashes [blockSlots]atomic.Uint32
	refs   [blockSlots]atomic.Uint64
	next   atomic.Pointer[block] // further slots of the bucket, or nil
}

const blockSize = int64(unsafe.Sizeof(block{})) // in bytes

// slotAt is a slot of a block, or none if the block is nil.
type slotAt struct {
	*block
	i int
}

func (s slotAt) ref() ref { return ref(s.refs[s.i].Load()) }

// replace replaces the place of the entry in a slot in use.
func (s slotAt) replace(r ref) { s.refs[s.i].Store(uint64(r)) }

// fill puts an entry into a free slot. The hash is stored first: a reader that sees the ref sees the hash.
func (s slotAt) fill(hash uint32, r ref) {
	s.hashes[s.i].Store(hash)
	s.refs[s.i].Store(uint64(r))
}

func (s slotAt) clear() { s.refs[s.i].Store(0) }

// slots calls f for each slot in use of the bucket that begins with b, which may be nil.
func (b *block) slots(f func(at slotAt, hash uint32, r ref)) {
	for ; b != nil; b = b.next.Load() {
		for i := range b.refs {
			if r := ref(b.refs[i].Load()); r != 0 {
				f(slotAt{b, i}, b.hashes[i].Load(), r)
			}
		}
	}
}

// home returns the slot of a block at which a search for a hash begins and mostly ends: then the processor loads
// the hash and the place of an entry at the same time. It depends on other bits of the hash than the number of the bucket.
func home(hash uint32) int { return int(hash>>28) % blockSlots }

// following returns the slot after i in the order of a search.
func following(i int) int {
	if i++; i < blockSlots {
		return i
	}
	return 0
}

// find returns the slot with this hash and place.
func (b *block) find(hash uint32, r ref) slotAt {
	for ; b != nil; b = b.next.Load() {
		for k, i := 0, home(hash); k < blockSlots; k, i = k+1, following(i) {
			if b.hashes[i].Load() == hash && ref(b.refs[i].Load()) == r {
				return slotAt{b, i}
			}
		}
	}
	return slotAt{}
}

// blocks returns the number of blocks of the bucket that begins with b, which may be nil.
func (b *block) blocks() (n int64) {
	for ; b != nil; b = b.next.Load() {
		n++
	}
	return n
}

// builder fills new blocks one after the other.
type builder struct {
	first, last *block
	used        int // slots of the last block
}

// newBuilder returns a builder of a bucket of one block.
func newBuilder() builder {
	first := new(block)
	return builder{first: first, last: first}
}

func (b *builder) add(hash uint32, r ref) {
	if b.used++; b.used > blockSlots {
		next := new(block)
		b.last.next.Store(next)
		b.last, b.used = next, 1
	}
	i := home(hash)
	for b.last.refs[i].Load() != 0 {
		i = following(i)
	}
	slotAt{b.last, i}.fill(hash, r)
}

// The number of buckets grows by linear hashing: bucket n is split off the bucket whose number is n without its highest
// bit, and gets the keys whose hash has that bit.

// bucketOf returns the bucket of a hash among count buckets.
func bucketOf(hash, count uint32) uint32 {
	mask := uint32(1)<<bits.Len32(count-1) - 1
	if n := hash & mask; n < count {
		return n
	}
	return hash & (mask >> 1)
}

// highestBit returns the highest bit of n, which is not 0.
func highestBit(n uint32) uint32 { return 1 << (bits.Len32(n) - 1) }

// table has the first block of each bucket, nil for a bucket that is not held. Any goroutine may load from it; only the
// owner and, while the owner waits, ristretto's goroutine store into it. It grows by segments of the size of all before,
// so that no block is ever in two tables.
type table [33]atomic.Pointer[[]atomic.Pointer[block]]

// at returns the place of bucket n, for which there must be room.
func (t *table) at(n uint32) *atomic.Pointer[block] {
	k := bits.Len32(n)
	return &(*t[k].Load())[n^1<<k>>1]
}

// extend makes room for bucket n, which comes after all for which there is room.
func (t *table) extend(n uint32) {
	k := bits.Len32(n)
	if t[k].Load() == nil {
		segment := make([]atomic.Pointer[block], max(1, 1<<k>>1))
		t[k].Store(&segment)
	}
}
