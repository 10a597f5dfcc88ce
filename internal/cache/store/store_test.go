package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func testStore(t testing.TB, size int64) *Owner {
	t.Helper()
	s := openStore(t, Config{MaxSize: size, NumCounters: 10_000})
	t.Cleanup(s.Close)
	return s
}

// openStore returns a store that the test closes.
func openStore(t testing.TB, cfg Config) *Owner {
	t.Helper()
	cfg, err := cfg.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGetAllocatesNothing(t *testing.T) {
	s := testStore(t, 1<<20)
	s.BeginSnapshot(false)
	s.Apply(1, []Change{{Key: "k", Value: strings.Repeat("v", 300), Version: 1, Present: true}})
	s.FinishSnapshot()
	for key, want := range map[string]Lookup{"k": Hit, "unknown": Absent} {
		k := []byte(key)
		if n := testing.AllocsPerRun(10_000, func() {
			if _, found := s.Get(k); found != want {
				t.Fatalf("%s: %v", key, found)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
}

// The store against a map: random sets, growing and shrinking values, deletes and snapshots. The space of replaced values is
// reclaimed, and the counters match the entries.
func TestStoreAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := testStore(t, 256<<20)
	want := map[string]Change{}
	version := uint64(0)
	compacted := false
	for round := range 400 {
		snapshot := round%40 == 39
		if snapshot {
			s.BeginSnapshot(false)
		}
		b := NewBatch(0)
		for range 500 {
			version++
			c := Change{Key: fmt.Sprint("key", rng.IntN(5000)), Version: version, Present: rng.IntN(10) > 0}
			if c.Present {
				n := rng.IntN(2000)
				if rng.IntN(500) == 0 {
					n = rng.IntN(3 * maxSlab)
				}
				c.Value = strings.Repeat(string(rune('a'+rng.IntN(26))), n)
			}
			b.Add(c)
		}
		s.Apply(1, b.Changes)
		if snapshot {
			dropped := s.FinishSnapshot()
			for key := range want {
				if _, ok := b.index[key]; !ok {
					dropped--
					delete(want, key)
				}
			}
			if dropped != 0 {
				t.Fatalf("round %d: the snapshot dropped %d entries too many", round, dropped)
			}
		}
		for _, c := range b.Changes {
			delete(want, c.Key)
			if c.Present {
				want[c.Key] = c
			}
		}
		for key, c := range want {
			if e, found := s.Get([]byte(key)); found != Hit || e.Value != c.Value || e.Version != c.Version {
				t.Fatalf("round %d: %s is %v, %d bytes, version %d; want %d bytes, version %d", round, key, found, len(e.Value), e.Version, len(c.Value), c.Version)
			}
		}
		if n := s.entries.Load(); n != int64(len(want)) {
			t.Fatalf("round %d: %d entries are counted, %d exist", round, n, len(want))
		}
		balanced(t, s)
		if excess := s.excess(); excess > int64(8*s.alloc.size) {
			t.Fatalf("round %d: %d bytes are dead, %d are live", round, s.alloc.dead(), s.slabs.live.Load())
		} else if s.alloc.dead() > int64(deadFloor*s.alloc.size) {
			compacted = true
		}
	}
	if !compacted {
		t.Error("nothing was compacted")
	}
}

// A snapshot over a full store, in another order than the one before, does not double the memory.
func TestSnapshotDoesNotDoubleTheMemory(t *testing.T) {
	s := testStore(t, 512<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	const keys, size = 24_000, 1000
	var most int64
	for snapshot := range uint64(3) {
		s.BeginSnapshot(false)
		page := NewBatch(0)
		for i, key := range rng.Perm(keys) {
			if snapshot == 2 && key%4 == 0 {
				continue // gone
			}
			page.Add(Change{Key: fmt.Sprint("key", key), Value: strings.Repeat("v", size), Version: snapshot + 1, Present: true})
			if i%1000 == 999 {
				s.Apply(snapshot+1, page.Changes)
				page.Reset()
				most = max(most, s.excess())
			}
		}
		s.Apply(snapshot+1, page.Changes)
		if dropped := s.FinishSnapshot(); snapshot == 2 && dropped != keys/4 {
			t.Errorf("the last snapshot dropped %d entries, want %d", dropped, keys/4)
		}
		for key := range keys {
			e, found := s.Get(fmt.Append(nil, "key", key))
			if snapshot == 2 && key%4 == 0 {
				if found != Absent {
					t.Fatalf("key%d is %v after a snapshot without it", key, found)
				}
			} else if found != Hit || e.Version != snapshot+1 || e.Epoch != snapshot+1 || len(e.Value) != size {
				t.Fatalf("key%d is %v, version %d of epoch %d, after snapshot %d", key, found, e.Version, e.Epoch, snapshot+1)
			}
		}
	}
	// Snapshots that fail leave entries of several epochs.
	for epoch := uint64(4); epoch < 10; epoch++ {
		s.BeginSnapshot(false)
		page := NewBatch(0)
		for i, key := range rng.Perm(keys) {
			if epoch < 9 && i > keys/2 {
				break
			}
			page.Add(Change{Key: fmt.Sprint("key", key), Value: strings.Repeat("v", size), Version: 1, Present: true})
			if i%1000 == 999 {
				s.Apply(epoch, page.Changes)
				page.Reset()
				most = max(most, s.excess())
			}
		}
	}
	s.FinishSnapshot()
	if limit := int64(8 * s.alloc.size); most > limit {
		t.Errorf("up to %d bytes above the compaction threshold were dead, want %d at most", most, limit)
	}
	balanced(t, s)
}

// balanced compares the counters of a store that has been flushed with its entries.
func balanced(t *testing.T, s *Owner) {
	t.Helper()
	s.syncCosts()
	s.wait()
	var cost, told, blocks, entries, live, liveInSlabs, held, own int64
	buckets := 0
	for n := range s.count {
		first := s.at(n).Load()
		if _, has := s.current.cache.Get(n); has != (first != nil) {
			t.Errorf("bucket %d is in ristretto: %v, and in the table: %v", n, has, first != nil)
		}
		if first == nil {
			if s.told[n] != 0 {
				t.Errorf("bucket %d is not held and costs %d", n, s.told[n])
			}
			continue
		}
		buckets++
		if s.told[n] != s.cost(n) {
			t.Errorf("ristretto knows a cost of %d for bucket %d, which costs %d", s.told[n], n, s.cost(n))
		}
		cost += s.cost(n)
		told += s.told[n]
		blocks += first.blocks()
		first.slots(func(_ slotAt, hash uint32, r ref) {
			sl := s.slabs.at(r)
			if key := sl.key(r.offset()); hash != s.hash(key) || bucketOf(hash, s.count) != n {
				t.Errorf("%s is in bucket %d", key, n)
			}
			if !sl.own {
				live += int64(sl.size(r.offset()))
			}
			entries++
		})
	}
	s.current.cache.IterValues(func(struct{}) bool {
		buckets--
		return false
	})
	if buckets != 0 {
		t.Errorf("ristretto has %d buckets fewer than the table", buckets)
	}
	if b := s.blocks.Load(); told != s.toldAll || b != blocks {
		t.Errorf("%d blocks are counted and ristretto knows a cost of %d; %d blocks exist with a cost of %d", b, s.toldAll, blocks, told)
	}
	table := *s.slabs.table.Load()
	for i := range table {
		switch sl := table[i].Load(); {
		case sl == nil:
		case sl.own:
			own += int64(cap(sl.data))
		default:
			held += int64(cap(sl.data))
			liveInSlabs += sl.live.Load()
		}
	}
	if used, n := s.used.Load(), s.entries.Load(); used != cost || n != entries {
		t.Errorf("%d entries of %d bytes are counted, %d of %d exist", n, used, entries, cost)
	}
	if h, o := s.slabs.held.Load(), s.slabs.heldOwn.Load(); h != held || o != own {
		t.Errorf("slabs of %d and %d bytes are counted, %d and %d exist", h, o, held, own)
	}
	if l := s.slabs.live.Load(); l != live || liveInSlabs != live {
		t.Errorf("%d bytes are counted as live, %d in all slabs, %d exist", l, liveInSlabs, live)
	}
	if room := s.current.cache.RemainingCost(); room != s.limit-cost {
		t.Errorf("ristretto has room for %d, the counters say %d", room, s.limit-cost)
	}
}

// In a complete store, a Get of a key that always exists never returns Absent; in an incomplete store it may miss. Entries
// move, grow and are evicted all the time.
func TestNoFalseAbsence(t *testing.T) {
	for _, size := range []int64{64 << 20, 400 << 10} { // the smaller one is complete until values grow
		s := testStore(t, size)
		const keys = 1000
		var all []Change
		for i := range keys {
			all = append(all, Change{Key: fmt.Sprint("key", i), Value: strings.Repeat("v", 100), Version: 1, Present: true})
		}
		s.BeginSnapshot(false)
		s.Apply(1, all)
		s.FinishSnapshot()
		if s.complete.Load() == 0 {
			t.Fatalf("a store of %d bytes is not complete", size)
		}
		var stop atomic.Bool
		var readers sync.WaitGroup
		var absent, hits atomic.Int64
		for seed := range uint64(2) {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 0))
				for !stop.Load() {
					key := fmt.Sprint("key", rng.IntN(keys))
					switch e, found := s.Get([]byte(key)); {
					case found == Absent:
						absent.Add(1)
					case found == Hit:
						hits.Add(1)
						if strings.Trim(e.Value, "v") != "" || uint64(len(e.Value)) != 100+e.Version%1000 && e.Version > 1 {
							t.Errorf("version %d of %s has %d bytes %.20q", e.Version, key, len(e.Value), e.Value)
						}
					}
				}
			})
		}
		rng := rand.New(rand.NewPCG(3, 0))
		for version := uint64(2); version < 60_000; {
			b := NewBatch(0)
			for range 100 {
				version++
				b.Add(Change{Key: fmt.Sprint("key", rng.IntN(keys)), Value: strings.Repeat("v", 100+int(version%1000)), Version: version, Present: true})
			}
			if version%10_000 < 100 { // a snapshot of a set that fits does not make keys vanish either
				s.BeginSnapshot(false)
				for _, c := range all {
					if _, ok := b.index[c.Key]; !ok {
						e, found := s.Get([]byte(c.Key))
						if found == Hit {
							b.Add(Change{Key: c.Key, Value: e.Value, Version: e.Version, Present: true})
						}
					}
				}
				s.Apply(1, b.Changes)
				s.FinishSnapshot()
				continue
			}
			s.Apply(1, b.Changes)
			if used := s.used.Load(); used > size {
				t.Fatalf("%d bytes are used of %d", used, size)
			}
		}
		stop.Store(true)
		readers.Wait()
		if absent.Load() > 0 || hits.Load() == 0 {
			t.Errorf("size %d: %d false absences, %d hits", size, absent.Load(), hits.Load())
		}
		if size < 1<<20 && s.evictions.Load() == 0 {
			t.Error("nothing was evicted")
		}
	}
}

// A ref to a freed slab must not lead into the slab that reuses its index.
func TestStaleRef(t *testing.T) {
	s := newAllocator(minSlab)
	stale, _ := s.add("k", "old", 1, 1, 0)
	s.drop(stale)
	s.endCurrent()
	for s.at(stale) == nil { // until the index is reused
		r, _ := s.add("k", "new", 2, 1, 0)
		if r.index() == stale.index() {
			if s.at(stale) != nil {
				t.Fatalf("the stale ref leads to %q", s.at(stale).entry(0).Value)
			}
			return
		}
		s.drop(r)
		s.endCurrent()
	}
	t.Fatal("the slab was not freed")
}

// Look-ups among a million values, most of which are not in the processor's caches.
func BenchmarkGet(b *testing.B) {
	const keys, queries, batch = 1_000_000, 1 << 18, 1000
	s := testStore(b, 512<<20)
	value := strings.Repeat("v", 259)
	s.BeginSnapshot(false)
	for i := 0; i < keys; i += batch {
		page := NewBatch(batch)
		for key := i; key < i+batch; key++ {
			page.Add(Change{Key: fmt.Sprint("post-", key), Value: value, Version: 1, Present: true})
		}
		s.Apply(1, page.Changes)
	}
	s.FinishSnapshot()
	rng := rand.New(rand.NewPCG(1, 1))
	for name, query := range map[string]func() []byte{
		"hot":    func() []byte { return []byte("post-7") },
		"random": func() []byte { return fmt.Append(nil, "post-", rng.IntN(keys)) },
		"absent": func() []byte { return fmt.Append(nil, "none-", rng.IntN(keys)) },
	} {
		all := make([][]byte, queries)
		for i := range all {
			all[i] = query()
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Get(all[i%queries])
				i++
			}
		})
		b.Run(name+" of 16 known keys", func(b *testing.B) {
			i := 0
			for b.Loop() {
				if i%PrefetchMax == 0 {
					s.Prefetch(all[i%queries:][:PrefetchMax])
				}
				s.Get(all[i%queries])
				i++
			}
		})
	}
}

// A snapshot, and updates after it, in batches of the size of pages and log steps.
func BenchmarkPut(b *testing.B) {
	const keys, batch = 100_000, 1000
	value := strings.Repeat("v", 259)
	var all []Change
	for i := range keys {
		all = append(all, Change{Key: fmt.Sprint("post-", i), Value: value, Version: 1, Present: true})
	}
	b.Run("load", func(b *testing.B) {
		s := testStore(b, 512<<20)
		i := 0
		for b.Loop() {
			if i%keys == 0 {
				b.StopTimer()
				s.Close()
				s = testStore(b, 512<<20)
				s.BeginSnapshot(false)
				b.StartTimer()
			}
			if i%batch == 0 {
				s.Put(1, all[i%keys:][:batch])
			}
			i++
		}
		s.flush()
	})
	b.Run("update", func(b *testing.B) {
		s := testStore(b, 512<<20)
		s.BeginSnapshot(false)
		s.Apply(1, all)
		s.FinishSnapshot()
		rng := rand.New(rand.NewPCG(1, 1))
		page := NewBatch(batch)
		i := 0
		for b.Loop() {
			if i%batch == 0 {
				page.Reset()
				for range batch {
					page.Add(all[rng.IntN(keys)])
				}
				s.Put(1, page.Changes)
			}
			i++
		}
		s.flush()
	})
}
