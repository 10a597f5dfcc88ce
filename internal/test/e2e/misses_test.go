package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/eventually"
)

// tiny is the smallest memory limit of a replica: about 70 values of the size used here.
func tiny(c *replica.Config) { c.Local.MaxSize = 64 << 10 }

func TestEverythingIsEvictedAllTheTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replica: tiny})
	w.fill("key", 300, 700)
	stop := w.run(load{keys: 300, padding: 1400})
	// Delay this reader's channel, so that misses return writes that it has not delivered yet.
	w.readers[1].channel.Delay(toClient, 100*time.Millisecond)
	w.flow(1500)
	w.readers[1].channel.Delay(toClient, 0)
	w.readers[0].link.Cut()
	w.flow(500)
	w.recovered("link cut, memory full", time.Now())
	stop()
	w.verify()
	for _, r := range w.readers {
		if s := r.replica.Status(); s.Complete || s.Bytes > s.MaxBytes {
			t.Errorf("%s: %+v", r.name, s)
		}
		if n := r.count(t, "cache_evictions_total"); n == 0 {
			t.Errorf("%s evicted nothing", r.name)
		}
		if n := r.count(t, "cache_fallbacks_total", "found"); n == 0 {
			t.Errorf("%s read nothing from Redis", r.name)
		}
	}
}

// The data set outgrows the memory limit during reads: from the first value that does not fit on, a key that is
// not in memory must not be answered with absence.
func TestSetOutgrowsTheMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replica: func(c *replica.Config) { c.Local.MaxSize = 256 << 10 }})
	w.fill("key", 40, 1000)
	w.settled()
	for _, r := range w.readers {
		if s := r.replica.Status(); !s.Complete {
			t.Fatalf("%s does not hold all of the few values: %+v", r.name, s)
		}
	}
	stop := w.run(load{keys: 400, padding: 2000})
	w.flow(1200)
	stop()
	for _, r := range w.readers {
		if s := r.replica.Status(); s.Complete {
			t.Fatalf("%s holds all values, so the test proves nothing: %+v", r.name, s)
		}
	}
	w.verify()
}

// A post is deleted or replaced while the reply to a miss is in flight.
func TestDeleteOvertakesASlowMiss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: 1, replica: tiny})
	w.fill("key", 200, 700)
	r := w.readers[0]
	w.settled()
	rng := rand.New(rand.NewPCG(1, 1))
	overtaken := 0
	for round := range 24 {
		key := w.missing(r, rng)
		r.data.Delay(toClient, time.Duration(5+rng.IntN(60))*time.Millisecond)
		sent := r.link.Bytes(toServer)
		var reads sync.WaitGroup
		for range 3 {
			reads.Go(func() { _, _, _ = w.observe(r, key) })
		}
		// Only the reply is delayed: Redis may execute the request before or after the write below.
		eventually.Nil(t, func() error {
			if r.link.Bytes(toServer) == sent {
				return errors.New("no request to Redis yet")
			}
			return nil
		})
		last := w.remove(key)
		if round%3 == 0 {
			last = w.set(key, 700)
		}
		token := w.mustWrite(last)[0].Token
		if !r.replica.Reached(replica.AtLeast(token)) {
			overtaken++
		}
		w.await(r, token)
		w.barrier(r)
		for range 3 { // whatever the slow read returned, later ones must return the new state
			value, present, err := w.observe(r, key)
			if err != nil || present != (last.Op == protocol.Set) || present && value != string(last.Value) {
				t.Fatalf("round %d: %q %v %v after %v of %s", round, value, present, err, last.Op, key)
			}
		}
		reads.Wait()
		r.data.Delay(toClient, 0)
		if last.Op == protocol.Delete {
			w.mustWrite(w.set(key, 700))
		}
	}
	if overtaken == 0 {
		t.Error("no write preceded the reply to a miss")
	}
	w.verify()
}

// missing returns a key that is not in memory.
func (w *world) missing(r *follower, rng *rand.Rand) (key string) {
	w.t.Helper()
	eventually.Nil(w.t, func() error {
		key = fmt.Sprint("key", rng.IntN(200))
		if _, found := r.replica.Get([]byte(key)); found != store.Miss {
			return fmt.Errorf("%s is in memory", key)
		}
		return nil
	})
	return key
}

// P5 with a small memory limit: values in memory are served, and reads of the others fail in time.
func TestMissesFailWhileRedisIsDown(t *testing.T) {
	t.Parallel()
	for _, down := range []struct {
		name string
		do   func(w *world)
		undo func(w *world)
	}{
		{"killed", func(w *world) { w.redis.Kill() }, func(w *world) { w.redis.Restart() }},
		{"paused", func(w *world) { w.redis.Pause() }, func(w *world) { w.redis.Resume() }},
	} {
		t.Run(down.name, func(t *testing.T) {
			w := newWorld(t, setup{replicas: 1, replica: tiny})
			w.fill("key", 200, 700)
			w.settled()
			r := w.readers[0]
			var held, missing []string
			for i := range 200 {
				key := fmt.Sprint("key", i)
				if _, found := r.replica.Get([]byte(key)); found == store.Hit {
					held = append(held, key)
				} else {
					missing = append(missing, key)
				}
			}
			if len(held) == 0 || len(missing) == 0 {
				t.Fatalf("%d values are in memory and %d are not, want some of each", len(held), len(missing))
			}
			goroutines := runtime.NumGoroutine()
			down.do(w)
			for range 3 {
				var reads sync.WaitGroup
				var mu sync.Mutex
				var slowest time.Duration
				for _, key := range missing {
					reads.Go(func() {
						began := time.Now()
						if _, _, err := w.observe(r, key); err == nil {
							t.Errorf("%s was answered without Redis", key)
						}
						mu.Lock()
						defer mu.Unlock()
						slowest = max(slowest, time.Since(began))
					})
				}
				for _, key := range held {
					if _, found := r.replica.Get([]byte(key)); found != store.Hit {
						t.Errorf("%s was in memory, but the lookup returns %v while Redis is down", key, found)
					}
				}
				reads.Wait()
				if slowest > 2*time.Second { // 500 ms, with a margin for a busy machine
					t.Errorf("a read took %v", slowest)
				}
				t.Logf("%d misses failed within %v", len(missing), slowest.Round(time.Millisecond))
			}
			eventually.Nil(t, func() error {
				if n := runtime.NumGoroutine(); n > goroutines+20 {
					return fmt.Errorf("%d goroutines, but %d before the fault", n, goroutines)
				}
				return nil
			})
			down.undo(w)
			w.recovered("Redis "+down.name+", memory full", time.Now())
			w.verify()
		})
	}
}
