package feed

import (
	"errors"
	"slices"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// A log step leaves a set out when the key has been written again. If Redis is then rolled back to a point between the
// two writes, the later write never follows, and the first one is current again. A follower between the two must not
// continue, wherever its events came from and wherever it resumes.
func TestRollbackBetweenALeftOutWriteAndTheLaterOne(t *testing.T) {
	for _, source := range []string{"log", "window"} {
		for _, resumes := range []string{"", "same reader", "other reader", "reader that restarts its window", "reader with the new history"} {
			t.Run(source+"/"+resumes, func(t *testing.T) {
				r := newFakeRedis()
				start := protocol.Position{Head: r.head()}
				f, clock := newTestFeed(r, 1<<20)
				r.write("a=1")
				r.write("b=1")
				r.write("c=1")
				r.write("a=2")
				r.perStep = 2
				if source == "window" {
					f.Restart(start.Head, start.Head)
					f.catchUp(t, r)
				}
				fo := f.follow(t, start.String())
				if got := fo.take(t, 1<<20); !slices.Equal(got, []string{"b=1"}) {
					t.Fatal(got)
				}
				at := fo.At()
				if at.Ahead != r.head() {
					t.Fatalf("at %v, the head is %v", at, r.head())
				}
				r.perStep = 100
				r.rollBack(1)
				clock.pass(time.Minute)
				switch resumes {
				case "":
					f.Restart(r.head(), r.head())
				case "same reader":
					f.Restart(r.head(), r.head())
					fo = f.follow(t, at.String())
				case "other reader":
					f, _ = newTestFeed(r, 1<<20)
					fo = f.follow(t, at.String())
				case "reader that restarts its window": // and its snapshot is at the position of the follower
					r.rollBack(1)
					f.Restart(r.head(), r.head())
					if r.head() != at.Head {
						t.Fatalf("rolled back to %v, the follower is at %v", r.head(), at)
					}
					fo = f.follow(t, at.String())
				case "reader with the new history":
					f, _ = newTestFeed(r, 1<<20)
					f.Restart(start.Head, start.Head)
					f.catchUp(t, r)
					f.live(r.write("d=1"))
					fo = f.follow(t, at.String())
				}
				if events, err := fo.Take(t.Context(), nil, 1<<20); !errors.Is(err, ErrGone) {
					t.Errorf("%v, %v at %v; a=1 is current and was left out", texts(t, events), err, fo.At())
				}
			})
		}
	}
}

// Without a rollback, the same follower gets the later write, also with the position in its text, and the position names
// no other write afterwards.
func TestTheLaterWriteFollows(t *testing.T) {
	for _, source := range []string{"log", "window", "window, then log", "log, then window"} {
		t.Run(source, func(t *testing.T) {
			r := newFakeRedis()
			start := protocol.Position{Head: r.head()}
			f, _ := newTestFeed(r, 1<<20)
			for _, w := range []string{"a=1", "b=1", "c=1", "d", "a=2", "e=1"} {
				r.write(w)
			}
			r.perStep = 2
			fill := func(steps int) {
				f.Restart(start.Head, start.Head)
				for range steps {
					f.catchUp(t, r)
				}
			}
			switch source {
			case "window":
				fill(3)
			case "window, then log":
				fill(1)
			}
			fo := f.follow(t, start.String())
			var got []string
			for len(got) < 5 {
				events := fo.take(t, 1)
				if len(events) == 0 {
					t.Fatalf("%v, then nothing at %v", got, fo.At())
				}
				got = append(got, events...)
				switch {
				case len(got) == 1 && source == "window, then log": // another reader, which has no window
					f, _ = newTestFeed(r, 1<<20)
				case len(got) == 2 && source == "log, then window":
					fill(3)
				}
				if p := fo.At(); len(got) < 5 && p.Ahead != r.head() {
					t.Errorf("at %v after %v, the head is %v", p, got, r.head())
				}
				fo = f.follow(t, fo.At().String())
			}
			if want := []string{"b=1", "c=1", "d", "a=2", "e=1"}; !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			if at := fo.At(); at != (protocol.Position{Head: r.head()}) {
				t.Errorf("at %v, the head is %v", at, r.head())
			}
		})
	}
}

// A commit that is larger than a log step comes in parts. A rollback between two of them must not hide a write.
func TestRollbackBetweenPartsOfACommit(t *testing.T) {
	r := newFakeRedis()
	start := protocol.Position{Head: r.head()}
	r.write("a=1", "b=1", "c=1")
	r.write("a=2")
	r.perStep = 2
	f, clock := newTestFeed(r, 1<<20)
	fo := f.follow(t, start.String())
	r.onStep = func() { // with r.mu locked
		r.onStep = nil
		r.now = r.past[len(r.past)-1]
		r.past = r.past[:len(r.past)-1]
	}
	events, err := fo.Take(t.Context(), nil, 1<<20)
	if err == nil || errors.Is(err, ErrGone) {
		t.Errorf("%v, %v: the follower may try again", texts(t, events), err)
	}
	clock.pass(time.Minute)
	if got := fo.take(t, 1<<20); !slices.Equal(got, []string{"a=1", "b=1", "c=1"}) {
		t.Error(got)
	}
}

// The event that is left out is the last one of its log step, and nothing is left out of the next one. Still no follower
// may continue from between the two writes.
func TestALeftOutWriteAtTheEndOfALogStep(t *testing.T) {
	for _, steps := range []int{0, 1, 2} { // in the window; the rest is in the log
		r := newFakeRedis()
		start := protocol.Position{Head: r.head()}
		f, _ := newTestFeed(r, 1<<20)
		for _, w := range []string{"b=1", "a=1", "c=1", "d=1", "a=2"} {
			r.write(w)
		}
		r.perStep = 2
		if steps > 0 {
			f.Restart(start.Head, start.Head)
		}
		for range steps {
			f.catchUp(t, r)
		}
		fo := f.follow(t, start.String())
		for _, want := range []string{"b=1", "c=1", "d=1"} {
			if steps == 1 && want == "c=1" {
				f, _ = newTestFeed(r, 1<<20)
				fo = f.follow(t, fo.At().String())
			}
			if got := fo.take(t, 1); !slices.Equal(got, []string{want}) {
				t.Errorf("%v, want %s", got, want)
			}
			if at := fo.At(); want != "b=1" && at.Ahead != r.head() {
				t.Errorf("%d log steps in the window: at %v after %s, the head is %v", steps, at, want, r.head())
			}
		}
	}
}
