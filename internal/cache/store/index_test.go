package store

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/test/eventually"
)

// indexes returns the number of ristretto caches that have not been closed.
func indexes() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "created by github.com/dgraph-io/ristretto/v2.newDefaultPolicy")
}

// ended waits until at most n ristretto caches are open.
func ended(t *testing.T, n int) {
	t.Helper()
	eventually.True(t, "closed stores have ended", func() bool {
		runtime.GC()
		return indexes() <= n
	})
}

// Reads during Close are answered, and the goroutines of the store end after them.
func TestGetDuringClose(t *testing.T) {
	before := indexes()
	for range 50 {
		s := openStore(t, Config{MaxSize: 1 << 20, NumCounters: 100, BufferItems: 1}) // each Get sends to the policy
		s.BeginSnapshot(false)
		s.Apply(1, []Change{{Key: "a", Value: "b", Version: 1, Present: true}})
		s.FinishSnapshot()
		var stop atomic.Bool
		var started, reads sync.WaitGroup
		for range 4 {
			started.Add(1)
			reads.Go(func() {
				for i := 0; !stop.Load(); i++ {
					if e, found := s.Get([]byte("a")); found == Absent || found == Hit && e.Value != "b" {
						t.Errorf("%v %q", found, e.Value)
					}
					if i == 10 {
						started.Done()
					}
				}
				if _, found := s.Get([]byte("a")); found != Miss {
					t.Errorf("a closed store answers %v", found)
				}
			})
		}
		started.Wait()
		s.Close()
		stop.Store(true)
		reads.Wait()
	}
	ended(t, before)
}

// An index that was made for many entries is replaced when few are left; reads are not affected.
func TestIndexShrinks(t *testing.T) {
	before := indexes()
	s := testStore(t, 8<<20)
	const keys, kept = 40_000, 2000
	var all []Change
	for i := range keys {
		all = append(all, Change{Key: fmt.Sprint("key", i), Value: "v", Version: 1, Present: true})
	}
	s.BeginSnapshot(false)
	s.Put(1, all)
	s.FinishSnapshot()
	if s.complete.Load() == 0 {
		t.Fatal("the set does not fit")
	}
	first := s.current.cache
	var stop atomic.Bool
	var reads sync.WaitGroup
	for range 2 {
		reads.Go(func() {
			for i := 0; !stop.Load(); i++ {
				key := fmt.Sprint("key", i%kept)
				if e, found := s.Get([]byte(key)); found != Hit || e.Value != "v" {
					t.Errorf("%s is %v %q", key, found, e.Value)
					return
				}
			}
		})
	}
	for i := range all {
		all[i].Present = i < kept
	}
	for page := range slices.Chunk(all[kept:], 1000) {
		s.Apply(1, page)
	}
	stop.Store(true)
	reads.Wait()
	if s.current.cache == first || s.idle() > s.max/16 {
		t.Errorf("the index of %d entries has %d buckets", s.entries.Load(), s.count)
	}
	for i, c := range all {
		want := Absent
		if i < kept {
			want = Hit
		}
		if _, found := s.Get([]byte(c.Key)); found != want {
			t.Fatalf("%s is %v, want %v", c.Key, found, want)
		}
	}
	balanced(t, s)
	if n := s.evictions.Load(); n != 0 {
		t.Errorf("%d evictions are counted", n)
	}
	ended(t, before+1)
}
