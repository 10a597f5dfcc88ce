// Package store holds the entries of a replica in memory, within a bound. ristretto maps a key to the place of
// its entry and decides which entries stay; the entries are in slabs, which the garbage collector does not scan.
//
// A Store is what reads use; any goroutine may call its methods. Its Owner changes it, from one goroutine.
package store

import (
	"cmp"
	"fmt"
	"runtime"
	"sync/atomic"
)

// Config bounds the memory of a store. Zero fields mean the defaults, which hold a million values of 260
// bytes.
type Config struct {
	// MaxSize is the most heap that entries may take, in bytes: keys, values, the index, and the space of
	// replaced entries that compaction has not reclaimed yet. The heap may exceed it by 512 KiB, and by one
	// value while a value above 2 MiB is being replaced. The counters and garbage that has not been collected
	// come on top. The default is 512 MiB.
	MaxSize int64
	// NumCounters is the number of counters of the admission policy, which decides once the store is full. The
	// default is 1,000,000, one for each entry of the default size (2.6 MB).
	NumCounters int64
	// BufferItems is the size of ristretto's Get buffers. The default, 64, is the size that its documentation
	// recommends.
	BufferItems int64
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
	slabs *slabTable
	max   int64 // the configured MaxSize

	// complete is the number of the snapshot that completed the set, 0 while an entry may be missing. The
	// owner clears it BEFORE anything that can make an entry vanish, because ristretto removes a victim before
	// it calls OnEvict.
	complete atomic.Uint64

	used      atomic.Int64 // cost of all entries, queued ones included, as ristretto counts it, in bytes
	entries   atomic.Int64
	evictions atomic.Uint64
	rejects   atomic.Uint64
}

// Get looks key up. It allocates nothing, takes no lock of this package, and does not keep key. Once the
// store is closed, every Get misses.
func (s *Store) Get(key []byte) (Entry, Lookup) {
	complete := s.complete.Load()
	for range 4 {
		index := s.index.Load()
		if index == nil {
			break
		}
		r, ok := index.cache.Get(key)
		runtime.KeepAlive(index) // see index.retire
		if !ok {
			if complete != 0 && s.complete.Load() == complete {
				return Entry{}, Absent
			}
			return Entry{}, Miss
		}
		if sl := s.slabs.at(r); sl != nil {
			return sl.entry(r.offset()), Hit
		}
		// The entry moved after the index returned its place: look it up again.
	}
	return Entry{}, Miss
}

// Complete reports whether the whole set is in memory.
func (s *Store) Complete() bool { return s.complete.Load() != 0 }

// Entries returns the number of entries.
func (s *Store) Entries() int64 { return s.entries.Load() }

// Cost returns the most memory that the entries may come to take, in bytes, index and dead space included.
func (s *Store) Cost() int64 { return s.used.Load() }

// HeapEstimate returns an estimate of the heap that the entries take now, in bytes.
func (s *Store) HeapEstimate() int64 { return s.slabs.bytes() + indexMean*s.entries.Load() }

// MaxSize returns the configured bound, in bytes.
func (s *Store) MaxSize() int64 { return s.max }

// Evictions returns the number of entries that were evicted for lack of room.
func (s *Store) Evictions() uint64 { return s.evictions.Load() }

// Rejections returns the number of entries that the admission policy refused.
func (s *Store) Rejections() uint64 { return s.rejects.Load() }

// exit accounts for an entry that leaves: replaced, deleted, evicted or refused. ristretto's goroutine calls it.
func (s *Store) exit(r ref) {
	if r == 0 {
		return // a Del of an absent key
	}
	s.used.Add(-s.slabs.drop(r))
	s.entries.Add(-1)
}
