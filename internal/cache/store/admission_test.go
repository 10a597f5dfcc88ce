package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// Reads count as accesses: entries that are read often stay while as many others are put as fit several times.
func TestReadsKeepEntries(t *testing.T) {
	const hot, others = 20, 20_000
	// ristretto collects accesses in buffers of a sync.Pool. The race detector makes that pool drop buffers at random, so
	// larger ones never fill up.
	s := openStore(t, Config{MaxSize: 1 << 20, NumCounters: 10_000, BufferItems: 1})
	t.Cleanup(s.Close)
	value := strings.Repeat("v", 300)
	put := func(key string) { s.Apply(1, []Change{{Key: key, Value: value, Version: 1, Present: true}}) }
	for i := range hot {
		put(fmt.Sprint("hot", i))
	}
	for i := range 500 { // the number of buckets does not change any more
		put(fmt.Sprint("first", i))
	}
	held := func() (n int) {
		for i := range hot {
			if _, found := s.Get(fmt.Append(nil, "hot", i)); found == Hit {
				n++
			}
			runtime.Gosched() // ristretto drops accesses while its goroutine cannot run, as in this loop on one processor
		}
		return n
	}
	for range 2000 {
		if held() != hot {
			t.Fatal("an entry is missing in a store with room")
		}
	}
	for i := range others {
		put(fmt.Sprint("other", i))
	}
	if n := held(); n < hot*9/10 {
		t.Errorf("%d of %d entries that are read often have stayed", n, hot)
	}
	if s.Evictions()+s.Rejections() < others/2 {
		t.Errorf("%d evictions and %d rejections: everything fits", s.Evictions(), s.Rejections())
	}
}
