package store

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// heap returns the size of the heap after a collection, in bytes, when n stores are open and all others have ended.
func heap(t *testing.T, n int) int64 {
	t.Helper()
	ended(t, n)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The heap of a store stays below its bound for values of any size under any changes, and the cost is not much higher than
// the heap.
func TestMemoryStaysBelowTheBound(t *testing.T) {
	for _, size := range []int{1, 60, 259, 1500, 3000, 6 << 10, 8 << 10, 9 << 10, 20 << 10, 29 << 10, 33 << 10, 41 << 10, 100 << 10, 1 << 20, 15 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bound := int64(40 << 20)
			switch { // a larger store has larger slabs, and packs larger entries into them
			case size < 100: // enough entries, and slabs of the same size as in a store of 8 MiB
				bound = 2 << 20
			case size < 2000:
				bound = 8 << 20
			case size < 5000:
				bound = 128 << 20
			}
			rng := rand.New(rand.NewPCG(1, uint64(size)))
			ended(t, 0)
			s := testStore(t, bound)
			empty := heap(t, 1)
			value := strings.Repeat("v", 16<<20)
			empty += int64(len(value))
			version := uint64(0)
			put := func(keys func(i int) int, n, size int, present bool) {
				var changes []Change
				for i := range n {
					version++
					changes = append(changes, Change{Key: fmt.Sprint("key-", keys(i)), Value: value[:size], Version: version, Present: present})
					if len(changes) == 2000 || i == n-1 {
						b := NewBatch(len(changes))
						for _, c := range changes {
							b.Add(c)
						}
						s.Apply(1, b.Changes)
						changes = changes[:0]
					}
				}
			}
			check := func(stage string) {
				t.Helper()
				balanced(t, s)
				took := heap(t, 1) - empty
				runtime.KeepAlive(value)
				t.Logf("%s: %d entries cost %d KiB and take %d KiB, estimated as %d KiB", stage, s.entries.Load(), s.used.Load()>>10, took>>10, s.HeapEstimate()>>10)
				if took > bound+512<<10 {
					t.Errorf("%s: the heap has %d bytes in a store of %d", stage, took, bound)
				}
				if charged := s.used.Load() + s.max - s.limit; took > charged+512<<10 {
					t.Errorf("%s: the heap has %d bytes, the cost is %d", stage, took, charged)
				}
			}

			fits := int(bound)/(size+50) + 2
			inOrder := func(i int) int { return i }
			s.BeginSnapshot(false)
			put(inOrder, fits+fits/4, size, true)
			s.FinishSnapshot()
			check("loaded")
			if used, took := s.used.Load(), heap(t, 1)-empty; size > 1<<10 && size < 1<<20 && (used < bound*9/10 || took < used*9/10) {
				t.Errorf("a full store costs %d bytes of %d and takes %d", used, bound, took)
			}
			put(func(int) int { return rng.IntN(fits) }, fits, size, true)
			check("updated")
			put(func(i int) int { return fits + i }, fits, size, true)
			check("other keys")
			put(func(int) int { return fits + rng.IntN(fits) }, fits, size, false)
			check("deleted")
			put(inOrder, fits, size*2/3, true)
			check("smaller")
			put(inOrder, int(bound)/(20<<10)*2, 20<<10, true)
			check("larger")
			s.BeginSnapshot(false)
			put(inOrder, fits/2, size, true)
			s.FinishSnapshot()
			check("second snapshot")
		})
	}
}
