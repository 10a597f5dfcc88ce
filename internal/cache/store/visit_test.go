package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// walk visits all entries and returns the number of visits of each key. It starts again if the index was replaced.
func walk(t *testing.T, s *Store) map[string]int {
	for {
		seen := map[string]int{}
		_, first := s.Buckets()
		for n := 0; ; n++ {
			count, index := s.Buckets()
			if index != first {
				break
			}
			if n >= count {
				return seen
			}
			s.Visit(n, func(key []byte, e Entry) bool {
				if part := fmt.Sprint(string(key), ".", e.Version, ";"); strings.ReplaceAll(e.Value, part, "") != "" {
					t.Errorf("version %d of %s is %.60q", e.Version, key, e.Value)
				}
				seen[string(key)]++
				return true
			})
		}
	}
}

// Walks beside an owner that adds, updates, removes and moves entries, splits buckets and replaces the index visit every key
// that is present all the time.
func TestWalkVisitsEveryKey(t *testing.T) {
	const kept, others = 500, 16_000
	s := testStore(t, 4<<20)
	rng := rand.New(rand.NewPCG(1, 4))
	version := uint64(0)
	change := func(key string, size int) Change {
		version++
		part := fmt.Sprint(key, ".", version, ";")
		return Change{Key: key, Value: strings.Repeat(part, size/len(part)+1), Version: version, Present: true}
	}
	s.BeginSnapshot(true)
	s.FinishSnapshot()
	var all []Change
	for i := range kept {
		all = append(all, change(fmt.Sprint("kept", i), 60))
	}
	s.Apply(1, all)

	var stop atomic.Bool
	var walks atomic.Int64
	var walkers sync.WaitGroup
	for range 2 {
		walkers.Go(func() {
			for !stop.Load() {
				seen := walk(t, s.Store)
				for i := range kept {
					if key := fmt.Sprint("kept", i); seen[key] == 0 {
						t.Errorf("a walk has not visited %s", key)
						return
					}
				}
				walks.Add(1)
			}
		})
	}
	for round := 0; (round < 6 || walks.Load() < 20) && !t.Failed(); round++ {
		for i := 0; i < others; i += 20 {
			var changes []Change
			for j := range 20 {
				c := change(fmt.Sprint("other", i+j), 60)
				c.Present = round%2 == 0
				changes = append(changes, c, change(fmt.Sprint("kept", rng.IntN(kept)), 60))
			}
			s.Apply(1, changes)
		}
	}
	stop.Store(true)
	walkers.Wait()
	if _, index := s.Buckets(); index < 3 || !s.Complete() {
		t.Errorf("complete: %v, after %d indexes", s.Complete(), index)
	}
	balanced(t, s)

	s.Close()
	if count, index := s.Buckets(); count != 0 || index != 0 {
		t.Errorf("a closed store has %d buckets in index %d", count, index)
	}
	s.Visit(0, func(key []byte, _ Entry) bool {
		t.Errorf("a closed store has %s", key)
		return true
	})
}

// A walk ends within a bucket when visit returns false.
func TestVisitEnds(t *testing.T) {
	s := testStore(t, 1<<20)
	for i := range 3 {
		s.Apply(1, []Change{{Key: fmt.Sprint("a", i), Value: "", Version: 1, Present: true}})
	}
	count, _ := s.Buckets()
	for n := range count {
		visited := 0
		s.Visit(n, func([]byte, Entry) bool {
			visited++
			return false
		})
		if visited > 1 {
			t.Errorf("%d entries of bucket %d are visited", visited, n)
		}
	}
	s.Visit(count, func([]byte, Entry) bool { t.Error("there is no such bucket"); return true })
}

// A walk ends, reports damage, and visits every other entry, whatever has happened to an entry or to its place in the index.
func TestVisitOfDamage(t *testing.T) {
	damages := map[string]func(s *Owner){
		"the end of the place, which is past the slab": func(s *Owner) { flipRef(s, "k1", 23) },
		"the generation of the place":                  func(s *Owner) { flipRef(s, "k1", 24) },
		"the slab of the place":                        func(s *Owner) { flipRef(s, "k1", 63) },
		"two places":                                   func(s *Owner) { flipRef(s, "k1", 63); flipRef(s, "k2", 62) },
		"the length of the value":                      func(s *Owner) { flip(s, "k1", 8) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			s := testStore(t, 1<<20)
			var want []string
			for i := range 20 {
				key := fmt.Sprint("k", i)
				s.Apply(1, []Change{{Key: key, Value: "value", Version: uint64(i + 1), Present: true}})
				want = append(want, key)
			}
			damage(s)
			whole := true
			var got []string
			count, _ := s.Buckets()
			for n := range count {
				whole = s.Visit(n, func(key []byte, e Entry) bool {
					if e.Value == "value" {
						got = append(got, string(key))
					}
					return true
				}) && whole
			}
			for _, key := range want[3:] {
				if !slices.Contains(got, key) {
					t.Errorf("%s was not visited", key)
				}
			}
			if whole {
				t.Error("the damage was not reported")
			}
		})
	}
}
