package e2e

import (
	"fmt"
	"testing"
	"time"

	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/eventually"
)

// P1, P3 and P5 when Redis is killed: no acknowledged write is lost, and reads from memory do not fail.
func TestRedisIsKilledAndRestarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.fill("old", 200, 20)
	w.settled()
	stop := w.run(load{})
	for range 2 {
		w.flow(200)
		w.redis.Kill()
		eventually.Nil(t, func() error {
			for _, r := range w.readers {
				if s := r.replica.Status(); !s.Degraded || s.Synced || s.Subscribed {
					return fmt.Errorf("%s has not detected the fault: %+v", r.name, s)
				}
			}
			return nil
		})
		for range 20 {
			w.fail(10)
			for _, r := range w.readers {
				for i := range 200 {
					key := fmt.Sprint("old", i)
					if e, found := r.replica.Get([]byte(key)); found != store.Hit || len(e.Value) < len(key) || e.Value[:len(key)] != key {
						t.Fatalf("%s: the lookup of %s returns %v %q while Redis is down", r.name, key, found, e.Value)
					}
				}
				if s := r.replica.Status(); !s.Ready || !s.Degraded || s.Lag == 0 {
					t.Fatalf("%s while Redis is down: %+v", r.name, s)
				}
			}
		}
		w.redis.Restart()
		w.recovered("Redis killed and restarted", time.Now())
	}
	w.flow(200)
	stop()
	w.verify()
	w.neverFailed()
}

func TestRedisIsPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	stop := w.run(load{})
	w.flow(100)
	w.redis.Pause()
	w.fail(4) // one write of each writer
	w.redis.Resume()
	w.recovered("Redis paused", time.Now())
	w.flow(100)
	stop()
	w.verify()
}

func TestLogIsTrimmedPastTheWatermark(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{publisher: func(c *publisher.Config) { c.LogLength = 200 }})
	stop := w.run(load{})
	w.flow(200)
	away := w.readers[0]
	for range 2 {
		before := away.count(t, "cache_snapshots_total", "trimmed")
		away.link.Refuse(true)
		away.link.Reset()
		w.flow(600)
		if err := w.direct.XTrimMaxLen(t.Context(), logKey, 50).Err(); err != nil {
			t.Fatal(err)
		}
		away.link.Refuse(false)
		w.recovered("log trimmed past a disconnected reader", time.Now())
		if after := away.count(t, "cache_snapshots_total", "trimmed"); after <= before {
			t.Errorf("%s did not start another snapshot", away.name)
		}
	}
	stop()
	w.verify()
}

// A snapshot is restarted when the log is trimmed past its start. The reader is not ready before one has
// succeeded.
func TestLogIsTrimmedDuringASnapshot(t *testing.T) {
	w := newWorld(t, setup{replicas: 1})
	w.fill("old", 20_000, 200)
	stop := w.run(load{})
	w.flow(50)
	late := w.addReader(func(r *follower) { r.data.Throttle(toClient, 8<<20) })
	eventually.Nil(t, func() error {
		if err := w.direct.XTrimMaxLen(t.Context(), logKey, 1).Err(); err != nil {
			return err
		}
		if late.replica.Status().Ready {
			t.Fatal("ready, although no snapshot can have succeeded")
		}
		if n := late.count(t, "cache_snapshots_total"); n < 3 {
			return fmt.Errorf("%v snapshots were started", n)
		}
		return nil
	})
	late.link.Heal()
	w.recovered("log trimmed during a snapshot", time.Now())
	w.hasAll(late, "old", 20_000)
	stop()
	w.verify()
}

// hasAll fails the test unless a reader has all keys of a fill in memory.
func (w *world) hasAll(r *follower, prefix string, n int) {
	w.t.Helper()
	missing := 0
	for i := range n {
		if _, found := r.replica.Get(fmt.Append(nil, prefix, i)); found != store.Hit {
			missing++
		}
	}
	if missing > 0 {
		w.t.Errorf("%s lacks %d of %d old values", r.name, missing, n)
	}
}

func TestRedisIsFlushed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.fill("old", 500, 20)
	stop := w.run(load{})
	for range 4 {
		w.flow(100)
		var err error
		w.history.Break(func() { err = w.direct.FlushAll(t.Context()).Err() })
		if err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		w.flow(20)
		w.recovered("FLUSHALL", since)
	}
	stop()
	w.verify()

	// Without a later write only a probe of the head can detect it.
	var err error
	w.history.Break(func() { err = w.direct.FlushAll(t.Context()).Err() })
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	w.settled()
	t.Logf("FLUSHALL and no write: converged in %v", time.Since(since).Round(time.Millisecond))
	w.verify()
}

// The next write follows at once, so replicas see only how the write script repairs the sequence number.
func TestSequenceIsSetBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.fill("old", 500, 20)
	stop := w.run(load{})
	for range 6 {
		w.flow(60)
		before := w.mustHead().Epoch
		if err := w.direct.Set(t.Context(), seqKey, 5, 0).Err(); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		w.flow(8)
		w.recovered("sequence number set back", since)
		if w.mustHead().Epoch == before {
			t.Fatal("versions were reused in one epoch")
		}
	}
	stop()
	w.verify()
}

// Redis is restarted during a snapshot, which makes the SCAN cursor invalid.
func TestRedisIsKilledDuringASnapshot(t *testing.T) {
	w := newWorld(t, setup{replicas: 1})
	w.fill("old", 30_000, 200)
	late := w.addReader(func(r *follower) { r.data.Throttle(toClient, 8<<20) })
	for range 3 {
		w.loading(late, 3000)
		w.redis.Kill()
		w.redis.Restart()
	}
	since := time.Now()
	late.link.Heal()
	w.recovered("Redis killed during a snapshot", since)
	w.hasAll(late, "old", 30_000)
	w.verify()
}

// loading waits until a reader has loaded at least atLeast posts of a snapshot. It stops the test if the snapshot
// has already finished.
func (w *world) loading(r *follower, atLeast int64) {
	w.t.Helper()
	eventually.Nil(w.t, func() error {
		s := r.replica.Status()
		if s.Ready {
			w.t.Fatalf("%s is ready, want it in the middle of a snapshot", r.name)
		}
		if s.Snapshot == nil || s.Snapshot.Loaded < atLeast {
			return fmt.Errorf("%s has not loaded %d posts yet: %+v", r.name, atLeast, s)
		}
		return nil
	})
}
