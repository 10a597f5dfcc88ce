package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
)

// load configures the load generator. Zero fields get defaults.
type load struct {
	keys    int           // number of keys; default 40
	padding int           // largest number of additional bytes in a value; default 100
	writers int           // number of writing goroutines; default 4
	readers int           // number of reading goroutines per replica; default 2
	pause   time.Duration // pause of a writer between two writes and of a reader between two bursts; default 2 ms
}

// burst is the number of reads without a pause in between.
const burst = 8

// run starts the load and returns a function that stops it and blocks until all requests in flight have been
// answered. The function may be called several times; the end of the test calls it too.
func (w *world) run(l load) (stop func()) {
	defaults := load{keys: 40, padding: 100, writers: 4, readers: 2, pause: 2 * time.Millisecond}
	for _, f := range []struct{ p, value *int }{
		{&l.keys, &defaults.keys}, {&l.padding, &defaults.padding}, {&l.writers, &defaults.writers}, {&l.readers, &defaults.readers},
	} {
		if *f.p == 0 {
			*f.p = *f.value
		}
	}
	if l.pause == 0 {
		l.pause = defaults.pause
	}
	stopped := make(chan struct{})
	var running sync.WaitGroup
	each := func(seed int, f func(rng *rand.Rand)) {
		running.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			tick := time.NewTicker(l.pause)
			defer tick.Stop()
			for {
				select {
				case <-stopped:
					return
				case <-tick.C:
					f(rng)
				}
			}
		})
	}
	for i := range l.writers {
		each(i, func(rng *rand.Rand) { _, _ = w.write(l.writes(w, rng)...) })
	}
	for _, r := range w.readers {
		for i := range l.readers {
			each(100+i, func(rng *rand.Rand) {
				w.barrier(r)
				for range burst {
					_, _, _ = w.observe(r, l.key(rng))
				}
			})
		}
	}
	stop = sync.OnceFunc(func() {
		close(stopped)
		running.Wait()
	})
	w.t.Cleanup(stop)
	return stop
}

func (l *load) key(rng *rand.Rand) string { return fmt.Sprint("key", rng.IntN(l.keys)) }

// writes generates the writes of one call. Half of the keys are never deleted, so that a delete of unknown
// outcome cannot explain their absence.
func (l *load) writes(w *world, rng *rand.Rand) []protocol.Write {
	if key := rng.IntN(l.keys); key%2 == 0 && rng.IntN(3) == 0 {
		return []protocol.Write{w.remove(fmt.Sprint("key", key))}
	}
	n := 1
	if rng.IntN(4) == 0 {
		n = 2 + rng.IntN(6)
	}
	var writes []protocol.Write
	for range n {
		writes = append(writes, w.set(l.key(rng), rng.IntN(l.padding+1)))
	}
	return writes
}

// flow waits until n more writes have been acknowledged.
func (w *world) flow(n int) {
	w.t.Helper()
	waitMore(w, "acknowledged writes", &w.acked, n)
}

// fail waits until n more writes have failed.
func (w *world) fail(n int) {
	w.t.Helper()
	waitMore(w, "failed writes", &w.failed, n)
}

func waitMore(w *world, what string, counter interface{ Load() int64 }, n int) {
	w.t.Helper()
	want := counter.Load() + int64(n)
	eventually.Nil(w.t, func() error {
		if got := counter.Load(); got < want {
			return fmt.Errorf("%d %s, want %d", got, what, want)
		}
		return nil
	})
}
