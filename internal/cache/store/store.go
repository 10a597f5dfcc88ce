// Package store holds the entries of a replica in memory, within a bound. A bucket has the places of about a dozen entries,
// and ristretto decides which buckets stay; the entries are in slabs, which the garbage collector does not scan.
//
// A Store is what reads use; any goroutine may call its methods. Its Owner changes it, from one goroutine.
package store

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync/atomic"
)

// Config bounds the memory of a store. Zero fields mean the defaults, which hold a million values of 430
// bytes.
type Config struct {
	// MaxSize is the most heap that entries may take, in bytes: keys, values, the index, and the space of
	// replaced entries that compaction has not reclaimed yet. The heap may exceed it by 512 KiB, and by one
	// value while a value above 2 MiB is being replaced. The counters and garbage that has not been collected
	// come on top. The default is 512 MiB.
	MaxSize int64
	// NumCounters is the number of counters of the admission policy, which decides once the store is full. The
	// default is 1,000,000 (2.6 MB): about ten for each bucket of a million entries, as ristretto recommends.
	NumCounters int64
	// BufferItems is the size of ristretto's Get buffers. The default, 64, is the size that its documentation
	// recommends.
	BufferItems int64
	// Checksums keeps the checksum of each value in place of the value: 8 bytes, big-endian. The digest of the
	// store is the same. It is for a replica that only compares.
	Checksums bool
}

// WithDefaults returns c with the defaults in place of zero fields. The error says which setting cannot work.
func (c Config) WithDefaults() (Config, error) {
	c.MaxSize = cmp.Or(c.MaxSize, 512<<20)
	c.NumCounters = cmp.Or(c.NumCounters, 1_000_000)
	c.BufferItems = cmp.Or(c.BufferItems, 64)
	switch {
	case c.MaxSize < 64<<10:
		return c, fmt.Errorf("cache size of %d bytes: use at least 65536", c.MaxSize)
	case c.NumCounters < 1 || c.NumCounters > 1<<32:
		return c, fmt.Errorf("%d cache counters: use about one per expected entry", c.NumCounters)
	case c.BufferItems < 1 || c.BufferItems > 1<<16:
		return c, fmt.Errorf("%d cache buffer items: use 64", c.BufferItems)
	}
	return c, nil
}

// Entry is one version of a value.
type Entry struct {
	Epoch   uint64
	Version uint64 // 0 for a value that was written before its epoch began
	Value   string // immutable
}

// Lookup is the result of a Get.
type Lookup int

const (
	Miss   Lookup = iota // not in memory, and Redis may have it
	Hit                  // in memory
	Absent               // the whole set is in memory, without this key
)

// Store is the memory of a replica, as reads see it.
type Store struct {
	index atomic.Pointer[index] // used by reads; nil once the store is closed
	seed  maphash.Seed          // of the hashes of keys
	slabs *slabTable
	max   int64 // the configured MaxSize

	// complete is the number of the snapshot that completed the set, 0 while an entry may be missing. The
	// owner clears it BEFORE anything that can make an entry vanish, because ristretto removes a victim before
	// it calls OnEvict.
	complete atomic.Uint64

	used      atomic.Int64 // cost of all buckets, in bytes
	blocks    atomic.Int64 // blocks of all buckets
	entries   atomic.Int64
	evictions atomic.Uint64
	rejects   atomic.Uint64
}

// Get looks key up. It allocates nothing, takes no lock of this package, and does not keep key. Once the
// store is closed, every Get misses.
func (s *Store) Get(key []byte) (Entry, Lookup) {
	complete := s.complete.Load()
	hash := s.hash(key)
	for moved := 0; moved < 4; {
		index := s.index.Load()
		if index == nil {
			return Entry{}, Miss
		}
		count := index.count.Load()
		e, found := s.search(index.bucket(hash, count), hash, key)
		changed := index.count.Load() != count || s.index.Load() != index
		runtime.KeepAlive(index) // see index.retire
		switch {
		case found == Hit:
			return e, Hit
		case found == Miss: // the entry moved after its place was loaded
			moved++
		case changed:
			// The entry may have left the bucket in a split before it was read.
		case complete != 0 && s.complete.Load() == complete:
			return Entry{}, Absent
		default:
			return Entry{}, Miss
		}
	}
	return Entry{}, Miss
}

// search looks a key up in the bucket that begins with b, which may be nil. The result is Absent if the bucket does not have
// the key, and Miss if the slab of an entry with this hash was freed after its place was loaded, or its lengths are damaged.
func (s *Store) search(b *block, hash uint32, key []byte) (Entry, Lookup) {
	found := Absent
	for ; b != nil; b = b.next.Load() {
		for k, i := 0, home(hash); k < blockSlots; k, i = k+1, following(i) {
			if b.hashes[i].Load() != hash {
				continue
			}
			r := ref(b.refs[i].Load())
			if r == 0 {
				continue
			}
			if sl := s.slabs.at(r); sl == nil || !sl.valid(r.offset()) {
				found = Miss
			} else if bytes.Equal(sl.key(r.offset()), key) {
				return sl.entry(r.offset()), Hit
			}
		}
	}
	return Entry{}, found
}

// hash returns the hash of a key.
func (s *Store) hash(key []byte) uint32 { return uint32(maphash.Bytes(s.seed, key)) }

// hashString returns the hash of a key.
func (s *Store) hashString(key string) uint32 { return uint32(maphash.String(s.seed, key)) }

// Complete reports whether the whole set is in memory.
func (s *Store) Complete() bool { return s.complete.Load() != 0 }

// Snapshot returns the number of the snapshot that completed the set, or 0 while an entry may be missing. While it is
// not 0 and does not change, entries are removed by deletes only, not by evictions or snapshots.
func (s *Store) Snapshot() uint64 { return s.complete.Load() }

// Entries returns the number of entries.
func (s *Store) Entries() int64 { return s.entries.Load() }

// Cost returns the most memory that the entries may come to take, in bytes, index and dead space included.
func (s *Store) Cost() int64 {
	buckets, _ := s.Buckets()
	return s.used.Load() + bucketCharge*int64(buckets)
}

// HeapEstimate returns an estimate of the heap that the entries take now, in bytes.
func (s *Store) HeapEstimate() int64 {
	buckets, _ := s.Buckets()
	return s.slabs.bytes() + blockSize*s.blocks.Load() + bucketMean*int64(buckets)
}

// SlabBytes returns the memory of the slabs, in bytes, without the index.
func (s *Store) SlabBytes() int64 { return s.slabs.bytes() }

// MaxSize returns the configured bound, in bytes.
func (s *Store) MaxSize() int64 { return s.max }

// Evictions returns the number of entries that were evicted for lack of room.
func (s *Store) Evictions() uint64 { return s.evictions.Load() }

// Rejections returns the number of entries that the admission policy refused.
func (s *Store) Rejections() uint64 { return s.rejects.Load() }
