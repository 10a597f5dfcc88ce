package cache

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/eventually"
)

// indexes returns the number of ristretto caches that have not ended.
func indexes() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "created by github.com/dgraph-io/ristretto/v2.newDefaultPolicy")
}

// ended waits until there are no more than n ristretto caches.
func ended(t *testing.T, n int) {
	t.Helper()
	eventually.True(t, "closed stores have ended", func() bool {
		runtime.GC()
		return indexes() <= n
	})
}

// Reads that run while a store is closed are answered, and its goroutines end when they have.
func TestGetDuringClose(t *testing.T) {
	before := indexes()
	for range 50 {
		cfg, err := LocalCacheConfig{MaxSize: 1 << 20, NumCounters: 100, BufferItems: 1}.WithDefaults() // each Get sends to the policy
		if err != nil {
			t.Fatal(err)
		}
		s, err := newStore(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.beginLoad()
		s.apply(1, []change{{key: "a", value: "b", version: 1, present: true}})
		s.finishLoad()
		var stop atomic.Bool
		var started, reads sync.WaitGroup
		for range 4 {
			started.Add(1)
			reads.Go(func() {
				for i := 0; !stop.Load(); i++ {
					if e, found := s.get([]byte("a")); found == Absent || found == Hit && e.Value != "b" {
						t.Errorf("%v %q", found, e.Value)
					}
					if i == 10 {
						started.Done()
					}
				}
				if _, found := s.get([]byte("a")); found != Miss {
					t.Errorf("a closed store answers %v", found)
				}
			})
		}
		started.Wait()
		s.close()
		stop.Store(true)
		reads.Wait()
	}
	ended(t, before)
}
