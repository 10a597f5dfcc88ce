package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Prefetch changes no answer, allocates nothing, and bears every key and every change of the store meanwhile.
func TestPrefetch(t *testing.T) {
	s := testStore(t, 1<<20)
	s.BeginSnapshot(false)
	s.FinishSnapshot()
	var keys [PrefetchMax][]byte
	for i := range keys {
		keys[i] = []byte(fmt.Sprint("k", i))
	}
	keys[3] = nil
	var reads sync.WaitGroup
	stop := make(chan struct{})
	reads.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.Prefetch(keys[:])
			if e, found := s.Get(keys[0]); found == Hit && !strings.HasPrefix(e.Value, "0 ") {
				t.Errorf("k0 is %.10q", e.Value)
				return
			}
		}
	})
	for round := range 60 { // more than fits, so that entries are evicted and their slabs are freed
		var all []Change
		for i := range 100 {
			key := (i + round*10) % 3000
			all = append(all, Change{
				Key: fmt.Sprint("k", key), Value: fmt.Sprint(key, " ", strings.Repeat("v", 600)), Version: uint64(round + 1), Present: i%7 > 0,
			})
		}
		s.Apply(1, all)
	}
	close(stop)
	reads.Wait()
	if n := testing.AllocsPerRun(1000, func() { s.Prefetch(keys[:]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	s.Prefetch(nil)
	s.Close()
	s.Prefetch(keys[:])
}
