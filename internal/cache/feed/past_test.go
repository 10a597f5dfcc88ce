package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

func TestPositionsThatAreGone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *fakeRedis)
		at     func(p *protocol.Position)
		want   error
	}{
		"another epoch":                         {func(r *fakeRedis) { r.now.head.Epoch++ }, nil, ErrGone},
		"trimmed log":                           {func(r *fakeRedis) { r.trim(1) }, nil, ErrGone},
		"empty log":                             {func(r *fakeRedis) { r.trim(0) }, nil, ErrGone},
		"another write id":                      {nil, func(p *protocol.Position) { p.WriteID++ }, ErrGone},
		"beyond the head":                       {nil, func(p *protocol.Position) { p.Version += 100 }, ErrGone},
		"beyond the primary of a Redis replica": {func(r *fakeRedis) { r.behind = 2 }, func(p *protocol.Position) { p.Version += 100 }, ErrGone},
		"ahead of the head": {nil,
			func(p *protocol.Position) {
				p.Ahead = protocol.Head{Epoch: p.Epoch, Version: p.Version + 100, WriteID: 1}
			}, ErrGone},
		"another write id ahead": {nil,
			func(p *protocol.Position) {
				p.Ahead = protocol.Head{Epoch: p.Epoch, Version: p.Version + 1, WriteID: 77}
			}, ErrGone},
		"no write id ahead": {nil,
			func(p *protocol.Position) { p.Ahead = protocol.Head{Epoch: p.Epoch, Version: p.Version + 1} }, ErrGone},
		"foreign entry": {func(r *fakeRedis) { r.now.entries[1].Writes, r.now.entries[1].Logged = 0, "" }, nil, ErrGone},
		"broken log":    {func(r *fakeRedis) { r.now.entries[2].Previous++ }, nil, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFakeRedis()
			at := protocol.Position{Head: r.head()}
			for i := range 4 {
				r.write(fmt.Sprintf("k%d=1", i))
			}
			if c.change != nil {
				c.change(r)
			}
			if c.at != nil {
				c.at(&at)
			}
			f, _ := newTestFeed(r, 1<<20)
			fo := f.follow(t, at.String())
			if events, err := fo.Take(t.Context(), nil, 1<<20); !errors.Is(err, c.want) {
				t.Errorf("%v, %v, want %v", texts(t, events), err, c.want)
			}
		})
	}
}

// A position that a Redis replica has not reached, or that is of a history that it does not have yet, is not gone: the
// primary has it.
func TestPositionAheadOfARedisReplica(t *testing.T) {
	for name, change := range map[string]func(r *fakeRedis){
		"behind":        func(r *fakeRedis) { r.behind = 3 },
		"another epoch": func(r *fakeRedis) { r.behind = 3; r.past[len(r.past)-3].head.Epoch++ },
		"another write id": func(r *fakeRedis) {
			r.behind = 3
			r.past[len(r.past)-3].head = protocol.Head{Epoch: 0xe, Version: 102, WriteID: 99}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFakeRedis()
			for i := range 2 {
				r.write(fmt.Sprintf("k%d=1", i))
			}
			at := protocol.Position{Head: r.head()}
			r.write("a=1")
			change(r)
			f, _ := newTestFeed(r, 1<<20)
			if got := f.follow(t, at.String()).take(t, 1<<20); !slices.Equal(got, []string{"a=1"}) {
				t.Error(got)
			}
		})
	}
}

// A position inside a commit continues with the rest of it.
func TestPositionInsideACommit(t *testing.T) {
	r := newFakeRedis()
	first := r.head().Version
	r.write("a=1", "b=1", "c=1")
	id := r.head().WriteID
	f, _ := newTestFeed(r, 1<<20)
	at := protocol.Position{Head: protocol.Head{Epoch: 0xe, Version: first + 1, WriteID: id}}
	if got := f.follow(t, at.String()).take(t, 1<<20); !slices.Equal(got, []string{"b=1", "c=1"}) {
		t.Error(got)
	}
}

// Followers at the same position share a log step, also those that resume behind a head; so do failures.
func TestFollowersShareLogSteps(t *testing.T) {
	r := newFakeRedis()
	start := protocol.Position{Head: r.head()}
	for _, w := range []string{"a=1", "b=1", "c=1", "a=2"} {
		r.write(w)
	}
	r.perStep = 2
	f, clock := newTestFeed(r, 1<<20)
	all := func(check func(events []Event, err error) error) {
		t.Helper()
		var following sync.WaitGroup
		for range 30 {
			fo := f.follow(t, start.String())
			following.Go(func() {
				if err := check(fo.Take(t.Context(), nil, 1<<20)); err != nil {
					t.Error(err)
				}
			})
		}
		following.Wait()
	}
	gets := func(want string) func(events []Event, err error) error {
		return func(events []Event, err error) error {
			if len(events) == 0 || events[0].Key != want {
				return fmt.Errorf("%v, %v, want %s", events, err, want)
			}
			return nil
		}
	}
	all(gets("b"))
	if r.requests != 1 {
		t.Errorf("%d log steps for 30 followers", r.requests)
	}
	first := f.follow(t, start.String())
	first.take(t, 1<<20)
	start = first.At() // which is behind the head
	all(gets("c"))
	if r.requests != 2 {
		t.Errorf("%d log steps for 30 followers at two positions", r.requests)
	}
	clock.pass(time.Minute)
	r.err = errors.New("down")
	all(func(_ []Event, err error) error {
		if !errors.Is(err, r.err) {
			return fmt.Errorf("%v, want %v", err, r.err)
		}
		return nil
	})
	if r.requests != 3 {
		t.Errorf("%d log steps: a failure is for all followers", r.requests)
	}
	clock.pass(time.Minute)
	r.err = nil
	all(gets("c"))
}

// A follower that waits for the log step of another one gives up with its context.
func TestWaitForTheLogEndsWithTheContext(t *testing.T) {
	r := newFakeRedis()
	r.write("a=1")
	f, _ := newTestFeed(r, 1<<20)
	f.past.turn <- struct{}{} // another log step is under way
	fo := f.follow(t, protocol.Token{Epoch: 0xe, Version: 100}.String())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fo.Take(ctx, nil, 1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A follower that has no turn gives up in time for its next heartbeat, and when the feed stops, however many others wait.
func TestWaitForTheLogIsBounded(t *testing.T) {
	for name, stop := range map[string]bool{"wait": false, "stop": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFakeRedis()
				r.write("a=1")
				f, _ := newTestFeed(r, 1<<20)
				f.past.turn <- struct{}{} // log steps of others
				fo := f.follow(t, protocol.Token{Epoch: 0xe, Version: 100}.String())
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				if stop {
					time.AfterFunc(time.Second, f.Stop)
				}
				_, err := fo.Take(ctx, nil, 1)
				if took := time.Since(began); err == nil || took > longestWait || stop && took > time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// endingLog is a log whose steps take until the time of a follower is over.
type endingLog struct {
	Log
	end func()
}

func (l endingLog) FetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	l.end()
	return l.Log.FetchStep(ctx, q)
}

// The end of one follower's time is no failure for the others.
func TestOneFollowersTimeIsItsOwn(t *testing.T) {
	r := newFakeRedis()
	r.write("a=1")
	f, _ := newTestFeed(r, 1<<20)
	at := protocol.Token{Epoch: 0xe, Version: 100}.String()
	ctx, cancel := context.WithCancel(t.Context())
	r.err = context.DeadlineExceeded
	f.past.log = endingLog{r, cancel}
	if _, err := f.follow(t, at).Take(ctx, nil, 1); !errors.Is(err, r.err) {
		t.Error(err)
	}
	f.past.log, r.err = r, nil
	if got := f.follow(t, at).take(t, 1); len(got) != 1 {
		t.Error(got)
	}
}

// A follower beyond the window asks the log at most once a second while nothing comes.
func TestFollowerBeyondTheWindow(t *testing.T) {
	r := newFakeRedis()
	f, clock := newTestFeed(r, 1<<20)
	f.Restart(r.head(), r.head())
	r.write("a=1")
	fo := f.follow(t, protocol.Position{Head: r.head()}.String())
	for range 10 {
		fo.take(t, 1)
	}
	if r.requests != 1 {
		t.Errorf("%d log steps in one moment", r.requests)
	}
	clock.pass(keptFor + checkPause)
	r.write("b=1")
	if got := fo.take(t, 1); !slices.Equal(got, []string{"b=1"}) {
		t.Error(got)
	}
}
