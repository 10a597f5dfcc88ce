package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
)

// Two writers read the same version and replace it with If-Match: in every round exactly one succeeds.
func TestWritersRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	other := w.newPublisher(faultnet.NewProxy(t, w.redis.Addr()))
	stop := w.run(load{keys: 10, writers: 2})
	const ids = 4
	var current [ids]protocol.Write
	for id := range ids {
		current[id] = w.set(fmt.Sprint("raced", id), 0)
		w.mustWrite(current[id])
	}
	for round := range 300 {
		id := round % ids
		var attempts [2]protocol.Write
		var results [2]publisher.Result
		var errs [2]error
		var both sync.WaitGroup
		for i, p := range []*publisher.Publisher{w.publisher, other} {
			attempts[i] = w.set(current[id].Key, 0)
			attempts[i].If = protocol.Condition{Tags: []protocol.Tag{current[id].Tag}}
			both.Go(func() {
				r, err := w.writeBy(p, attempts[i])
				if errs[i] = err; err == nil {
					results[i] = r[0]
				}
			})
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		switch a, b := results[0].Outcome, results[1].Outcome; {
		case a == protocol.Replaced && b == protocol.ConditionFailed:
			current[id] = attempts[0]
		case a == protocol.ConditionFailed && b == protocol.Replaced:
			current[id] = attempts[1]
		default:
			t.Fatalf("round %d: outcomes %c and %c, want one R and one F", round, a, b)
		}
	}
	stop()
	w.verify()
	for _, want := range current {
		for _, r := range w.readers {
			if e, _ := r.replica.Get([]byte(want.Key)); e.Value != string(want.Value) {
				t.Errorf("%s has %q under %s, but the last winner wrote %q", r.name, e.Value, want.Key, want.Value)
			}
		}
	}
}

// New keys are replaced at once. A replica that simply called ristretto's Set would keep the first value of
// most of them.
func TestCreatedAndUpdatedBackToBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	const keys = 20_000
	var last protocol.Token
	for i := 0; i < keys; i += 50 {
		var create, update []protocol.Write
		for k := i; k < i+50; k++ {
			create = append(create, w.set(fmt.Sprint("new", k), 0))
			update = append(update, w.set(fmt.Sprint("new", k), 0))
		}
		if i%100 == 0 { // both writes in one call, else in two
			w.mustWrite(create...)
			create = nil
		}
		results := w.mustWrite(append(create, update...)...)
		last = results[len(results)-1].Token
		if i%2000 == 0 { // force catch-ups of one reader
			w.readers[0].link.Cut()
		}
	}
	since := time.Now()
	eventually.Nil(t, func() error {
		for _, r := range w.readers {
			if s := r.replica.Status(); s.Applied.Version < last.Version {
				return fmt.Errorf("%s is at %+v, want %v", r.name, s, last)
			}
		}
		return nil
	})
	t.Logf("%d new keys, each replaced at once: converged %v after the last write", keys, time.Since(since).Round(time.Millisecond))
	for _, r := range w.readers {
		stale := 0
		for _, s := range w.stored() {
			if e, _ := r.replica.Get([]byte(s.key)); e.Value != s.value {
				stale++
			}
		}
		t.Logf("%s: %d of %d stale", r.name, stale, keys)
		if stale > 0 {
			t.Errorf("%s: %d of %d are stale", r.name, stale, keys)
		}
	}
	w.verify()
}

// A write whose reply is lost was executed once or not at all, and the writer determines which.
func TestReplyToAWriteIsLost(t *testing.T) {
	t.Parallel()
	for _, lost := range []struct {
		name   string
		action faultnet.Action
		done   bool // Redis executes the write
	}{
		{"connection cut at the reply", faultnet.CutAtReply, true},
		{"reply swallowed", faultnet.SwallowReply, true},
		{"request swallowed", faultnet.Swallow, false},
		{"connection cut at the request", faultnet.CutNow, false},
	} {
		t.Run(lost.name, func(t *testing.T) {
			w := newWorld(t, setup{replicas: 1})
			w.mustWrite(w.set("a", 0), w.set("b", 0))
			for range 2 {
				before := w.mustHead()
				w.uplink.OnceContains(toServer, "evalsha\r\n", lost.action)
				began := time.Now()
				_, err := w.write(w.set("a", 0))
				took := time.Since(began)
				if lost.done && err != nil || !lost.done && !errors.Is(err, publisher.ErrNotWritten) {
					t.Fatalf("the write ended with %v", err)
				}
				if took > 2*time.Second {
					t.Errorf("the result arrived after %v", took)
				}
				after := w.mustHead()
				if done := after.Version - before.Version; lost.done && done != 1 || !lost.done && done != 0 {
					t.Errorf("the write was executed %d times", done)
				}
				w.uplink.Heal()
				w.mustWrite(w.set("b", 0))
			}
			w.verify()
		})
	}
}

// A delayed request reaches Redis after its writer has given up. Redis refuses it because of its deadline, so
// that it does not overwrite newer writes.
func TestWriteArrivesTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: 1})
	other := w.newPublisher(faultnet.NewProxy(t, w.redis.Addr()))
	w.mustWrite(w.set("a", 0))
	calls := w.commands("evalsha")
	w.uplink.Stall(toServer, true)
	began := time.Now()
	if _, err := w.write(w.set("a", 0)); !errors.Is(err, publisher.ErrUnknown) {
		t.Fatalf("the write ended with %v, want it unknown", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the result arrived after %v", took)
	}
	// Wait for the deadline of the write, which is later than the timeout of the client.
	eventually.Nil(t, func() error {
		if d := time.Since(began); d < 1600*time.Millisecond {
			return fmt.Errorf("only %v have passed since the write", d)
		}
		return nil
	})
	if _, err := w.writeBy(other, w.set("a", 0)); err != nil {
		t.Fatal(err)
	}
	before := w.mustHead()
	w.uplink.Heal()
	eventually.Nil(t, func() error {
		if n := w.commands("evalsha"); n < calls+2 {
			return fmt.Errorf("%d calls of the script, want two more than %d", n, calls)
		}
		return nil
	})
	if after := w.mustHead(); after != before {
		t.Errorf("Redis went from %+v to %+v: a write was executed after its deadline", before, after)
	}
	w.verify()
}

// commands returns the number of calls of a command in Redis.
func (w *world) commands(name string) (n int) {
	w.t.Helper()
	info, err := w.direct.Info(context.Background(), "commandstats").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	stats := infoField(info, "cmdstat_"+name)
	if stats == "" {
		return 0
	}
	if _, err := fmt.Sscanf(stats, "calls=%d", &n); err != nil {
		w.t.Fatalf("commandstats of %s are %q: %v", name, stats, err)
	}
	return n
}
