package keyset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Sets of random keys behave like sorted slices.
func TestSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(prefix string, n int) (keys []string) {
		for range n {
			key := make([]byte, rng.IntN(12))
			for i := range key {
				key[i] = byte(rng.IntN(3)) // keys repeat and are prefixes of each other
			}
			keys = append(keys, prefix+string(key))
		}
		return keys
	}
	for _, prefix := range []string{"", "post-", strings.Repeat("x", 256)} {
		for _, n := range []int{0, 1, 2, markEvery - 1, markEvery, markEvery + 1, 3000} {
			keys := random(prefix, n)
			b := NewBuilder(int64(n))
			for _, key := range keys {
				b.Add([]byte(key))
			}
			s := b.Set()
			slices.Sort(keys)
			keys = slices.Compact(keys)
			if s.Len() != len(keys) {
				t.Fatalf("%d keys, want %d", s.Len(), len(keys))
			}
			for _, start := range append(random(prefix, 50), "", "\xff", prefix, prefix[:len(prefix)/2], prefix+"\xff") {
				i, found := slices.BinarySearch(keys, start)
				if got := slices.Collect(s.From(start)); !slices.Equal(got, keys[i:]) {
					t.Fatalf("from %q: %q, want %q", start, got, keys[i:])
				}
				if s.Has(start) != found {
					t.Fatalf("Has(%q) is %v", start, !found)
				}
				list := Union(nil, random(prefix, 0))
				added := random(prefix, 40)
				slices.Sort(added)
				list = Union(list, slices.Compact(added))
				want := slices.Concat(keys[i:], list)
				slices.Sort(want)
				if got := slices.Collect(Merge(s.From(start), list)); !slices.Equal(got, slices.Compact(want)) {
					t.Fatalf("merged with %q: %q, want %q", list, got, want)
				}
			}
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	const keys = 1_000_000
	for b.Loop() {
		builder := NewBuilder(keys)
		for _, i := range rand.Perm(keys) {
			builder.Add(fmt.Appendf(nil, "post-%d", i))
		}
		s := builder.Set()
		b.ReportMetric(float64(len(s.text)+8*len(s.marks))/float64(s.Len()), "B/key")
	}
}
