package feed

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

func running(t *testing.T, f *Feed) {
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
}

// A signal wakes every follower, also those that the removal of others moves to another index during the round.
func TestEveryFollowerIsWoken(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<20)
	f.Restart(r.head(), r.head())
	running(t, f)
	rng := rand.New(rand.NewPCG(1, 1))
	var followers []*Follower
	for round := range 30 {
		for len(followers) < 10*wakesPerSlice {
			followers = append(followers, f.Follow(f.End()))
		}
		f.live(r.write(fmt.Sprintf("a=%d", round)))
		at := func(index int) int {
			return slices.IndexFunc(followers, func(fo *Follower) bool { return fo.index == index })
		}
		began := time.Now()
		for first := followers[at(0)]; len(first.wake) == 0; runtime.Gosched() { // until the round has begun
			if time.Since(began) > 10*time.Second {
				t.Fatalf("round %d: no follower was woken", round)
			}
		}
		for n := range 3 * wakesPerSlice {
			i := rng.IntN(len(followers))
			if n < 5 { // the last follower takes a place that the round has passed
				i = at(n)
			}
			followers[i].Close()
			followers[i] = followers[len(followers)-1]
			followers = followers[:len(followers)-1]
		}
		for i, fo := range followers {
			for fo.At() != f.End() {
				select {
				case <-fo.Wake():
					fo.take(t, 1<<20)
				case <-time.After(10 * time.Second):
					t.Fatalf("round %d: follower %d was not woken", round, i)
				}
			}
		}
	}
}

func TestStop(t *testing.T) {
	f, _ := newTestFeed(newFakeRedis(), 1<<20)
	select {
	case <-f.Stopping():
		t.Error("stopped")
	default:
	}
	f.Stop()
	f.Stop()
	<-f.Stopping()
}

// Followers beside the applier: each gets growing versions, and ends with the state of Redis, whatever mixture of window
// and log it had.
func TestFollowersBesideTheApplier(t *testing.T) {
	r := newFakeRedis()
	f := New(3000, r) // about 15 events
	f.Restart(r.head(), r.head())
	running(t, f)
	start := f.End()
	var done atomic.Bool
	var following sync.WaitGroup
	for n := range 8 {
		following.Go(func() {
			values, at := map[string]string{}, start
			for fo := f.Follow(start); ; {
				last := done.Load()
				events, err := fo.Take(t.Context(), nil, 1+int64(n)*200)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if e.At.Version <= at.Version {
						t.Errorf("version %d after %d", e.At.Version, at.Version)
					}
					at = e.At
					if values[e.Key] = e.Value; e.Deleted {
						delete(values, e.Key)
					}
				}
				if last && fo.At().Head == r.head() {
					fo.Close()
					break
				}
				if len(events) > 0 && n%2 == 0 { // it resumes
					at = fo.At()
					fo.Close()
					fo = f.Follow(at)
				}
				if len(events) == 0 && !last {
					select {
					case <-fo.Wake():
					case <-time.After(100 * time.Millisecond):
					}
				}
			}
			if want := r.state(t); !maps.Equal(values, want) {
				t.Errorf("follower %d has %v at %v, Redis has %v", n, values, at, want)
			}
		})
	}
	rng := rand.New(rand.NewPCG(2, 2))
	applied := 0
	for i := range 2000 {
		w := fmt.Sprintf("k%d", rng.IntN(9))
		if rng.IntN(5) > 0 {
			w += fmt.Sprintf("=%d", i)
		}
		c := r.write(w)
		if rng.IntN(50) == 0 { // the message is lost: log steps follow
			for range 1 + rng.IntN(20) {
				r.write(fmt.Sprintf("k%d=%d", rng.IntN(9), i))
			}
			f.catchUp(t, r)
			continue
		}
		f.live(c)
		applied++
	}
	done.Store(true)
	following.Wait()
	if f.End() != (protocol.Position{Head: r.head()}) {
		t.Errorf("%d messages: at %v, Redis at %v", applied, f.End(), r.head())
	}
}

// An update of a reader without followers wakes no goroutine.
func TestWithoutFollowersNothingIsWoken(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<20)
	f.Restart(r.head(), r.head())
	f.live(r.write("a=1"))
	fo := f.Follow(f.End())
	fo.Close()
	f.live(r.write("a=2"))
	if n := len(f.pump.moved); n != 0 {
		t.Fatalf("the pump has %d tokens, want 0", n)
	}
	f.Follow(f.End())
	f.live(r.write("a=3"))
	if n := len(f.pump.moved); n != 1 {
		t.Fatalf("with a follower the pump has %d tokens, want 1", n)
	}
}
