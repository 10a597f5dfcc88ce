package cache

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func testStore(t testing.TB, size int64) *store {
	t.Helper()
	cfg, err := LocalCacheConfig{MaxSize: size, NumCounters: 10_000}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestGetAllocatesNothing(t *testing.T) {
	s := testStore(t, 1<<20)
	s.beginLoad()
	s.apply(1, []change{{key: "k", value: strings.Repeat("v", 300), version: 1, present: true}})
	s.finishLoad()
	for key, want := range map[string]Lookup{"k": Hit, "unknown": Absent} {
		k := []byte(key)
		if n := testing.AllocsPerRun(10_000, func() {
			if _, found := s.get(k); found != want {
				t.Fatalf("%s: %v", key, found)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", key, n)
		}
	}
}

// The slabs against a map: random sets, growing and shrinking values, deletes, loads; the space of
// replaced values comes back, and the books balance.
func TestStoreAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := testStore(t, 256<<20)
	want := map[string]change{}
	version := uint64(0)
	compacted := false
	for round := range 400 {
		load := round%40 == 39
		if load {
			s.beginLoad()
		}
		b := newBatch(0)
		for range 500 {
			version++
			c := change{key: fmt.Sprint("key", rng.IntN(5000)), version: version, present: rng.IntN(10) > 0}
			if c.present {
				n := rng.IntN(2000)
				if rng.IntN(500) == 0 {
					n = rng.IntN(3 * slabSize)
				}
				c.value = strings.Repeat(string(rune('a'+rng.IntN(26))), n)
			}
			b.add(c)
		}
		s.apply(1, b.changes)
		if load {
			dropped := s.finishLoad()
			for key := range want {
				if _, ok := b.index[key]; !ok {
					dropped--
					delete(want, key)
				}
			}
			if dropped != 0 {
				t.Fatalf("round %d: the load dropped %d entries too many", round, dropped)
			}
		}
		for _, c := range b.changes {
			delete(want, c.key)
			if c.present {
				want[c.key] = c
			}
		}
		var bytes, live int64
		for key, c := range want {
			if e, found := s.get([]byte(key)); found != Hit || e.Value != c.value || e.Version != c.version {
				t.Fatalf("round %d: %s is %v, %d bytes, version %d; want %d bytes, version %d", round, key, found, len(e.Value), e.Version, len(c.value), c.version)
			}
			live += int64(entryHeader + len(key) + len(c.value))
		}
		bytes = s.used.Load() - s.entries.Load()*indexOverhead
		if n := s.entries.Load(); n != int64(len(want)) || bytes != live {
			t.Fatalf("round %d: %d entries of %d bytes are counted, there are %d of %d", round, n, bytes, len(want), live)
		}
		if round > 0 && s.cache.RemainingCost() != s.max-s.used.Load() {
			t.Fatalf("round %d: ristretto has room for %d, the books say %d", round, s.cache.RemainingCost(), s.max-s.used.Load())
		}
		if dead := s.slabs.filled - live; dead > live/deadShare+deadFloor+16*slabSize {
			t.Fatalf("round %d: %d bytes are dead beside %d", round, dead, live)
		} else if dead > deadFloor {
			compacted = true
		}
		var held int64
		for i := range *s.slabs.table.Load() {
			if sl := (*s.slabs.table.Load())[i].Load(); sl != nil {
				held += int64(sl.used)
			}
		}
		if held != s.slabs.filled {
			t.Fatalf("round %d: slabs hold %d bytes, the books say %d", round, held, s.slabs.filled)
		}
	}
	if !compacted {
		t.Error("the test never came near compaction")
	}
}

// A load over a full store, in another order than the one before, does not take the memory twice.
func TestLoadDoesNotDoubleTheMemory(t *testing.T) {
	s := testStore(t, 512<<20)
	rng := rand.New(rand.NewPCG(1, 1))
	const keys, size = 24_000, 1000
	var most, live int64
	held := func() (bytes int64) {
		for i := range *s.slabs.table.Load() {
			if sl := (*s.slabs.table.Load())[i].Load(); sl != nil {
				bytes += int64(len(sl.data))
			}
		}
		return bytes
	}
	for load := range uint64(3) {
		s.beginLoad()
		page := newBatch(0)
		for i, key := range rng.Perm(keys) {
			if load == 2 && key%4 == 0 {
				continue // gone
			}
			page.add(change{key: fmt.Sprint("key", key), value: strings.Repeat("v", size), version: load + 1, present: true})
			if i%1000 == 999 {
				s.apply(load+1, page.changes)
				page.reset()
				live = s.used.Load() - s.entries.Load()*indexOverhead
				most = max(most, held()-live)
			}
		}
		s.apply(load+1, page.changes)
		if dropped := s.finishLoad(); load == 2 && dropped != keys/4 {
			t.Errorf("the last load dropped %d entries, want %d", dropped, keys/4)
		}
		for key := range keys {
			e, found := s.get(fmt.Append(nil, "key", key))
			if load == 2 && key%4 == 0 {
				if found != Absent {
					t.Fatalf("key%d is %v after a load without it", key, found)
				}
			} else if found != Hit || e.Version != load+1 || e.Epoch != load+1 || len(e.Value) != size {
				t.Fatalf("key%d is %v %+v after load %d", key, found, e.Token(), load+1)
			}
		}
	}
	// Loads that break off leave entries of several epochs.
	for epoch := uint64(4); epoch < 10; epoch++ {
		s.beginLoad()
		page := newBatch(0)
		for i, key := range rng.Perm(keys) {
			if epoch < 9 && i > keys/2 {
				break
			}
			page.add(change{key: fmt.Sprint("key", key), value: strings.Repeat("v", size), version: 1, present: true})
			if i%1000 == 999 {
				s.apply(epoch, page.changes)
				page.reset()
				live = s.used.Load() - s.entries.Load()*indexOverhead
				most = max(most, held()-live)
			}
		}
	}
	s.finishLoad()
	// An eighth: the ends of slabs that the next entry did not fit into.
	if limit := live/deadShare + live/8 + deadFloor + 16*slabSize; most > limit {
		t.Errorf("%d bytes were not alive beside %d at a time, want %d at most", most, live, limit)
	}
	if bytes := held() - s.slabs.filled; bytes > live/8+2*slabSize {
		t.Errorf("the ends of slabs have %d bytes", bytes)
	}
}

// A reader that looks for keys that are always there, in a store that is complete, must never be
// told that one is absent; when it is not complete, it may miss. Entries move, grow and are evicted
// all the time.
func TestNoFalseAbsence(t *testing.T) {
	for _, size := range []int64{64 << 20, 300 << 10} { // the smaller one holds the set until values grow
		s := testStore(t, size)
		const keys = 1000
		var all []change
		for i := range keys {
			all = append(all, change{key: fmt.Sprint("key", i), value: strings.Repeat("v", 100), version: 1, present: true})
		}
		s.beginLoad()
		s.apply(1, all)
		s.finishLoad()
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
					switch e, found := s.get([]byte(key)); {
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
			b := newBatch(0)
			for range 100 {
				version++
				b.add(change{key: fmt.Sprint("key", rng.IntN(keys)), value: strings.Repeat("v", 100+int(version%1000)), version: version, present: true})
			}
			if version%10_000 < 100 { // the load of a set that fits does not make keys vanish either
				s.beginLoad()
				for _, c := range all {
					if _, ok := b.index[c.key]; !ok {
						e, found := s.get([]byte(c.key))
						if found == Hit {
							b.add(change{key: c.key, value: e.Value, version: e.Version, present: true})
						}
					}
				}
				s.apply(1, b.changes)
				s.finishLoad()
				continue
			}
			s.apply(1, b.changes)
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

// A place that was looked up before its slab went away must not lead into the slab that has the
// index now.
func TestStaleRef(t *testing.T) {
	s := newSlabs()
	stale, _ := s.add([]byte("k"), "old", 1, 1, 0)
	s.drop(stale)
	s.endCurrent()
	for s.at(stale) == nil { // until the index is used again
		r, _ := s.add([]byte("k"), "new", 2, 1, 0)
		if r.index() == stale.index() {
			if s.at(stale) != nil {
				t.Fatalf("the stale place leads to %q", s.at(stale).entry(0).Value)
			}
			return
		}
		s.drop(r)
		s.endCurrent()
	}
	t.Fatal("the slab is still there")
}

func BenchmarkGet(b *testing.B) {
	s := testStore(b, 512<<20)
	var all []change
	keys := make([][]byte, 100_000)
	for i := range keys {
		keys[i] = fmt.Append(nil, "post-", i)
		all = append(all, change{key: string(keys[i]), value: strings.Repeat("v", 259), version: 1, present: true})
	}
	s.beginLoad()
	s.apply(1, all)
	s.finishLoad()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.get(keys[7])
		}
	})
	b.Run("spread", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919) % len(keys)
			s.get(keys[i])
		}
	})
}
