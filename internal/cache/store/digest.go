package store

import (
	"encoding/binary"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// The digest of a set of entries is the sum of the digests of its entries, modulo 2^64. A sum does not depend on the
// order, and an entry that leaves is subtracted, so the digest follows every change at a cost that does not grow with
// the set. docs/protocol.md says which states two equal digests can hide.

// Checksum returns the checksum of a value.
func Checksum(value string) uint64 { return xxhash.Sum64String(value) }

// KeyHash returns the hash of a key. It is the same in every process.
func KeyHash(key []byte) uint64 { return xxhash.Sum64(key) }

// EntryDigest returns the digest of one entry. For given hash and checksum, different versions always have different
// digests; for given hash and version, so have different checksums.
func EntryDigest(keyHash, version, checksum uint64) uint64 {
	return mix(mix(keyHash+mix(version+1)) + checksum)
}

// mix is the finalizer of SplitMix64: a bijection in which each input bit changes about half of the output bits.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// checksumAt returns the checksum of the value of the entry at offset.
func (s *slabTable) checksumAt(sl *slab, offset int) uint64 {
	value := sl.entry(offset).Value
	if s.checksums {
		return uint64At(value)
	}
	return Checksum(value)
}

// digestAt returns the digest of the entry at offset, from its bytes as they are now.
func (s *slabTable) digestAt(sl *slab, offset int) uint64 {
	return EntryDigest(KeyHash(sl.key(offset)), sl.version(offset), s.checksumAt(sl, offset))
}

// Digest returns the digest of all entries. It is exact after Apply and FinishSnapshot.
func (o *Owner) Digest() uint64 { return o.slabs.digest }

// checksumSize is the size of a checksum that is stored in place of its value, in bytes.
const checksumSize = 8

// stored returns what is kept of a value: the value, or its checksum, which is valid until the next call.
func (o *Owner) stored(value string) string {
	if !o.cfg.Checksums {
		return value
	}
	binary.BigEndian.PutUint64(o.checksum[:], Checksum(value))
	return unsafe.String(&o.checksum[0], checksumSize)
}

// uint64At decodes a stored checksum.
func uint64At(value string) uint64 {
	if len(value) != checksumSize {
		return 0 // only if the entry is damaged
	}
	return binary.BigEndian.Uint64(unsafe.Slice(unsafe.StringData(value), checksumSize))
}

// Item is one entry in a list of keys.
type Item struct {
	Key      string
	Version  uint64
	Checksum uint64 // checksum of the value
}

// Each calls f for every entry, in no order. key is valid until f returns.
func (o *Owner) Each(f func(key []byte, version, checksum uint64)) {
	o.flush()
	table := *o.slabs.table.Load()
	for i := range table {
		if sl := table[i].Load(); sl != nil {
			o.eachLive(sl, func(offset int) { f(sl.key(offset), sl.version(offset), o.slabs.checksumAt(sl, offset)) })
		}
	}
}

// eachLive calls f with the offset of every live entry of sl.
func (o *Owner) eachLive(sl *slab, f func(offset int)) {
	for offset := 0; offset < sl.used && sl.valid(offset); offset += sl.size(offset) {
		if o.isLive(sl, offset) {
			f(offset)
		}
	}
}

// isLive reports whether the index has the entry at offset.
func (o *Owner) isLive(sl *slab, offset int) bool {
	hash := o.hash(sl.key(offset))
	return o.at(bucketOf(hash, o.count)).Load().find(hash, newRef(sl.index, sl.generation, offset)).block != nil
}
