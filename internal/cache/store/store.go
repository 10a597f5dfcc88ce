package store

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// Config bounds the memory of a replica. Zero fields mean the defaults, which hold a
// million values of 260 bytes.
type Config struct {
	// MaxSize is the most heap that entries may take, in bytes: keys, values, the index, and the space of
	// replaced entries that has not been won back yet. The heap may exceed it by 512 KiB, and by one
	// value while a value above 2 MiB is being replaced. The counters and garbage that waits for a
	// collection come on top. The default is 512 MiB.
	MaxSize int64
	// NumCounters is the number of counters of the admission policy. They only matter once the
	// cache is full; the default is 1,000,000, one for each entry of the default size (2.6 MB).
	NumCounters int64
	// BufferItems is the size of ristretto's Get buffers; the default, 64, is the advised one.
	BufferItems int64
}

// WithDefaults returns c with the defaults in place of zero fields, or an error that says what cannot
// work.
func (c Config) WithDefaults() (Config, error) {
	c.MaxSize = cmp.Or(c.MaxSize, 512<<20)
	c.NumCounters = cmp.Or(c.NumCounters, 1_000_000)
	c.BufferItems = cmp.Or(c.BufferItems, 64)
	switch {
	case c.MaxSize < 64<<10:
		return c, fmt.Errorf("cache size of %d bytes: use at least 65536", c.MaxSize)
	case c.NumCounters < 1 || c.NumCounters > 1<<32:
		return c, fmt.Errorf("%d cache counters: use about as many as entries are expected", c.NumCounters)
	case c.BufferItems < 1 || c.BufferItems > 1<<16:
		return c, fmt.Errorf("%d cache buffer items: use 64", c.BufferItems)
	}
	return c, nil
}

// Entry is one version of a value in the memory of a replica.
type Entry struct {
	Epoch   uint64
	Version uint64 // 0 for a value that is older than its epoch
	Value   string // immutable
}

// Lookup is the outcome of a look into memory.
type Lookup int

const (
	Miss   Lookup = iota // memory cannot tell: Redis must
	Hit                  // the entry is there
	Absent               // the whole set is in memory and the key is not in it
)

// Change is what the owner applies to the store: a value, or its absence.
type Change struct {
	Key     string
	Value   string
	Version uint64
	Present bool
}

// Store is the memory of a replica: ristretto maps a key to the place of its entry. One goroutine,
// the owner, changes it; any goroutine may call get.
type Store struct {
	cfg   Config
	cache *ristretto.Cache[[]byte, ref] // the owner's
	index atomic.Pointer[index]         // what reads go through; nil once the store is closed
	slabs *slabs
	max   int64 // the configured MaxSize

	// complete is 0 while an entry may be missing, else the number of the load that completed the
	// set. The owner clears it BEFORE anything that can make an entry vanish: ristretto takes a
	// victim out before it tells.
	complete atomic.Uint64

	used      atomic.Int64 // cost of all entries, queued ones included, as ristretto counts it, in bytes
	entries   atomic.Int64
	evictions atomic.Uint64
	rejects   atomic.Uint64

	// The owner's alone:
	pending    bool // changes have been put and may not be visible
	inSnapshot bool
	overflow   bool   // the running load did not fit
	compacted  int64  // dead bytes that compact left when it ran last
	scratch    []byte // the key that is being changed
	limit      int64  // most that used may come to, in bytes; ristretto's MaxCost
	peak       int64  // most entries that there ever were: the index keeps the size that it had for them
	settled    int64  // bytes that the slabs held when the store had settled last
}

func New(cfg Config) (*Store, error) {
	s := &Store{cfg: cfg, slabs: newSlabs(slabSizeFor(cfg.MaxSize)), max: cfg.MaxSize}
	s.limit = s.capacity()
	i, err := s.newIndex()
	if err != nil {
		return nil, fmt.Errorf("create the local cache: %w", err)
	}
	s.cache = i.cache
	s.index.Store(i)
	return s, nil
}

// exit is called for every entry that leaves: replaced, deleted, evicted or refused.
func (s *Store) exit(r ref) {
	if r == 0 {
		return // a Del of a key that was not there
	}
	s.used.Add(-s.slabs.drop(r))
	s.entries.Add(-1)
}

// spareSlabs are the shared slabs that may be held beside what the entries cost: dead space below
// which nothing is compacted, changes that have not settled, slabs that are being filled, and what
// compaction lags behind.
const spareSlabs = deadFloor + batchSlabs + 8

// capacity returns the most that all entries may cost, in bytes. A small store does not have room for
// spareSlabs.
func (s *Store) capacity() int64 {
	return s.max - min(spareSlabs*int64(s.slabs.size), s.max/32) - s.idle()
}

// HeapEstimate estimates the heap that the entries take now, in bytes. Any goroutine may call it.
func (s *Store) HeapEstimate() int64 { return s.slabs.bytes() + indexMean*s.entries.Load() }

// Get looks key up. It allocates nothing, takes no lock of this package, and does not keep key. Once
// the store is closed it misses.
func (s *Store) Get(key []byte) (Entry, Lookup) {
	complete := s.complete.Load()
	for range 4 {
		index := s.index.Load()
		if index == nil {
			break
		}
		r, ok := index.cache.Get(key)
		runtime.KeepAlive(index) // see retire
		if !ok {
			if complete != 0 && s.complete.Load() == complete {
				return Entry{}, Absent
			}
			return Entry{}, Miss
		}
		if sl := s.slabs.at(r); sl != nil {
			return sl.entry(r.offset()), Hit
		}
		// The entry moved between the two looks.
	}
	return Entry{}, Miss
}

// Bounds of what is put without waiting until it is visible.
const (
	maxBatch   = 4096 // changes: ristretto drops a Set when its buffer of 32 Ki is full
	batchSlabs = 8    // unsettled bytes, in slabs: until put settles, the store holds old and new values
)

// Apply makes changes visible, in one batch that has each key once, and returns when they are.
// Owner only.
func (s *Store) Apply(epoch uint64, changes []Change) {
	s.Put(epoch, changes)
	s.settle()
}

// Put is apply that leaves it to the next one, or to settle, to wait until the changes are visible:
// ristretto takes them in while the owner prepares more. A key may come twice in a batch if it comes
// with the same value.
func (s *Store) Put(epoch uint64, changes []Change) {
	for batch := range slices.Chunk(changes, maxBatch) {
		s.settle()
		for _, c := range batch {
			s.pending = true
			s.change(epoch, c)
			if s.slabs.bytes()-s.settled > int64(batchSlabs*s.slabs.size) {
				s.settle()
			}
		}
	}
}

// settle returns when everything that was put is visible.
func (s *Store) settle() {
	if s.pending {
		s.cache.Wait()
		s.slabs.sweep()
		s.pending = false
	}
	s.compact()
	s.settled = s.slabs.bytes()
	s.peak = max(s.peak, s.entries.Load())
	s.reindex()
	if limit := s.capacity(); limit != s.limit {
		// The capacity never falls by more than used has: an entry that has gone cost more than its
		// share of the index.
		s.limit = limit
		s.cache.UpdateMaxCost(limit)
	}
}

func (s *Store) change(epoch uint64, c Change) {
	s.scratch = append(s.scratch[:0], c.Key...)
	if !c.Present {
		if _, had := s.cache.Get(s.scratch); had {
			s.cache.Del(s.scratch)
		}
		return
	}
	r, cost := s.slabs.add(s.scratch, c.Value, c.Version, epoch, s.slabs.snapshot)
	if s.used.Load()+cost > s.limit {
		s.makeRoom(cost)
	}
	s.set(r, cost)
}

// makeRoom prepares for an entry of that cost, under the key in s.scratch, which may not fit.
func (s *Store) makeRoom(cost int64) {
	old, had := s.cache.Get(s.scratch)
	var oldCost int64
	if had {
		oldCost = s.slabs.at(old).cost(old.offset())
	}
	if s.used.Load()+cost-oldCost <= s.limit {
		return
	}
	s.complete.Store(0)
	s.overflow = true
	if had && cost > oldCost {
		// ristretto charges only new keys against its limit, so a growing value has to come as one.
		s.cache.Del(s.scratch)
		s.cache.Wait()
	}
}

// set puts r under the key in s.scratch.
func (s *Store) set(r ref, cost int64) {
	s.used.Add(cost)
	s.entries.Add(1)
	for !s.cache.Set(s.scratch, r, cost) {
		s.cache.Wait() // the buffer was full, and the Set forgotten
	}
}

// BeginSnapshot prepares for a load of the whole set: entries that it does not write again go away
// with finishLoad. Owner only.
//
// With keepComplete, which takes an empty store, absences go on being answered from memory.
func (s *Store) BeginSnapshot(keepComplete bool) {
	if !keepComplete {
		s.complete.Store(0)
	}
	s.slabs.beginSnapshot()
	s.inSnapshot, s.overflow = true, false
}

// InSnapshot reports whether a load has begun and not finished. Owner only.
func (s *Store) InSnapshot() bool { return s.inSnapshot }

// Overflowed reports whether the running or last load did not fit. Owner only.
func (s *Store) Overflowed() bool { return s.overflow }

// FinishSnapshot drops what the load did not write, marks the set complete if all of it fits, and
// returns the number of dropped entries. Owner only.
func (s *Store) FinishSnapshot() (dropped int) {
	s.settle()
	var stale [][]byte
	if s.slabs.older() {
		s.cache.IterValues(func(r ref) bool {
			if sl := s.slabs.at(r); sl.snapshot < s.slabs.snapshot {
				stale = append(stale, sl.key(r.offset()))
			}
			return false
		})
	}
	for i, key := range stale { // collected first: Del inside IterValues deadlocks
		s.cache.Del(key)
		if i%maxBatch == maxBatch-1 {
			s.cache.Wait()
		}
	}
	s.slabs.endMoved()
	s.inSnapshot, s.pending = false, true
	s.settle()
	if !s.overflow {
		s.complete.Store(s.slabs.snapshot)
	}
	return len(stale)
}

// Compaction starts when the shared slabs hold more dead bytes than one part in deadShare of the live
// ones, and deadFloor slabs. A smaller share saves memory and moves more bytes for each byte that is
// replaced.
const (
	deadShare = 16
	deadFloor = 8
)

// excess returns the dead bytes that are too many.
func (s *Store) excess() int64 {
	return s.slabs.dead() - s.slabs.live.Load()/deadShare - int64(deadFloor*s.slabs.size)
}

// maxVictims bounds the slabs that are emptied at a time, so that no batch waits long.
const maxVictims = 8 * batchSlabs

// compact moves the live entries of the emptiest slabs together while too much is dead: in proportion to
// what has died since it ran last, and slowly what is left from before.
func (s *Store) compact() {
	if excess := s.excess(); excess > 0 {
		died := max(0, s.slabs.dead()-s.compacted)
		victims := 2 + (8*died+excess/16)/int64(s.slabs.size)
		for _, victim := range s.slabs.emptiest(int(min(victims, maxVictims))) {
			s.evacuate(victim)
			if s.excess() <= 0 {
				break
			}
		}
	}
	s.compacted = s.slabs.dead()
}

// evacuate copies what is alive in sl into the current slab and frees sl.
func (s *Store) evacuate(sl *slab) {
	for offset := 0; offset < sl.used; offset += sl.size(offset) {
		s.scratch = append(s.scratch[:0], sl.key(offset)...)
		if r, ok := s.cache.Get(s.scratch); !ok || r != newRef(sl.index, sl.generation, offset) {
			continue // replaced or gone
		}
		e := sl.entry(offset)
		s.set(s.slabs.add(s.scratch, e.Value, e.Version, e.Epoch, sl.snapshot))
	}
	s.cache.Wait()
	s.slabs.sweep()
}

// MarkIncomplete keeps absences from being answered from memory until the next snapshot. Owner only.
func (s *Store) MarkIncomplete() { s.complete.Store(0) }

// Close makes every later read miss, and ends the goroutines of the store once the reads that run have
// ended. The owner may call no method after it.
func (s *Store) Close() {
	s.complete.Store(0)
	if last := s.index.Swap(nil); last != nil {
		last.retire()
	}
}

// Complete reports whether the whole set is in memory. Any goroutine may call it, as all the methods below.
func (s *Store) Complete() bool { return s.complete.Load() != 0 }

// Entries returns the number of entries.
func (s *Store) Entries() int64 { return s.entries.Load() }

// Cost returns the most memory that the entries may come to take, in bytes, index and dead space included.
func (s *Store) Cost() int64 { return s.used.Load() }

// MaxSize returns the configured bound of the memory, in bytes.
func (s *Store) MaxSize() int64 { return s.max }

// Evictions returns the number of entries that were evicted for lack of room.
func (s *Store) Evictions() uint64 { return s.evictions.Load() }

// Rejections returns the number of entries that the admission policy refused.
func (s *Store) Rejections() uint64 { return s.rejects.Load() }
