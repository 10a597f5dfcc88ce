package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Buckets split from one to hundreds while their entries are updated and moved, and readers look all keys up: a key that
// was applied is always found, with one of its values. Then values grow until buckets are evicted: a key may be missed,
// and is never absent.
func TestReadsWhileBucketsSplit(t *testing.T) {
	const keys = 6000
	s := testStore(t, 4<<20)
	s.BeginSnapshot(true)
	s.FinishSnapshot()

	var applied atomic.Int64 // number of keys that exist
	var evicting, stop atomic.Bool
	var readers sync.WaitGroup
	for seed := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(1, seed))
			var text []byte
			for !stop.Load() {
				n := int(applied.Load())
				if n == 0 {
					continue
				}
				key := rng.IntN(n)
				text = fmt.Append(text[:0], "key", key)
				e, found := s.Get(text)
				if found == Absent || found == Miss && !evicting.Load() {
					t.Errorf("%s of %d is %v", text, n, found)
					return
				}
				if part := fmt.Sprint(key, ".", e.Version, ";"); found == Hit && strings.ReplaceAll(e.Value, part, "") != "" {
					t.Errorf("version %d of %s is %.60q", e.Version, text, e.Value)
					return
				}
			}
		})
	}

	rng := rand.New(rand.NewPCG(1, 9))
	version, written := uint64(1), 0
	change := func(key, size int) Change {
		version++
		part := fmt.Sprint(key, ".", version, ";")
		written += size
		return Change{Key: fmt.Sprint("key", key), Value: strings.Repeat(part, size/len(part)+1), Version: version, Present: true}
	}
	for n := 0; n < keys && !t.Failed(); n += 10 {
		var changes []Change
		for key := n; key < n+10; key++ {
			changes = append(changes, change(key, 60), change(rng.IntN(key+1), 60), change(rng.IntN(key+1), 60))
		}
		s.Apply(1, changes)
		applied.Store(int64(n + 10))
	}
	if !s.Complete() || s.count < keys/meanBucket-maxSplits {
		t.Errorf("complete: %v, with %d buckets", s.Complete(), s.count)
	}
	balanced(t, s)
	if held := s.alloc.bytes(); held > int64(written) {
		t.Errorf("%d bytes were written, of which nothing was reclaimed: %d are held", written, held)
	}
	evicting.Store(true)
	for size := 60; s.evictions.Load() < keys && !t.Failed(); size += 20 {
		var changes []Change
		for range 500 {
			changes = append(changes, change(rng.IntN(keys), size))
		}
		s.Apply(1, changes)
	}
	stop.Store(true)
	readers.Wait()
	balanced(t, s)
}

// No bucket is evicted while old and new ones have the same entries, also in a store that fills up during a split.
func TestSplitsOfAFullStore(t *testing.T) {
	for _, size := range []int64{64 << 10, 200_000} {
		for round := range 10 {
			s := testStore(t, size+int64(round)*997)
			for i := range size / 20 {
				s.Apply(1, []Change{{Key: fmt.Sprint(round, "-", i), Value: "v", Version: 1, Present: true}})
			}
			if s.Evictions()+s.Rejections() == 0 {
				t.Fatalf("everything fits into %d bytes", size)
			}
			balanced(t, s)
			s.Close()
		}
	}
}

// Buckets that ristretto has queued are not evicted because a split lowers the limit, while ristretto does not know that
// entries have been removed.
func TestSplitsWithOutdatedCosts(t *testing.T) {
	for round := range 50 {
		s := testStore(t, 2<<20)
		for i := range 3000 {
			s.Apply(1, []Change{{Key: fmt.Sprint("large", round, "-", i), Value: strings.Repeat("v", 4<<10), Version: 1, Present: true}})
		}
		evicted := s.Evictions()
		for i := range 3000 {
			s.Put(1, []Change{{Key: fmt.Sprint("large", round, "-", i)}})
		}
		for i := range 12_000 {
			s.Put(1, []Change{{Key: fmt.Sprint("small", round, "-", i), Value: "v", Version: 1, Present: true}})
		}
		if s.Evictions() != evicted {
			t.Errorf("round %d: %d entries were evicted although all fit", round, s.Evictions()-evicted)
		}
		balanced(t, s)
		s.Close()
	}
}
