package feed

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

func TestLiveWrites(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<20)
	f.Restart(r.head(), r.head())
	start := f.End()
	f.live(r.write("a=1"))
	f.live(r.write("a=2", "b=1", "a=3"))
	f.live(r.write("b"))
	for _, most := range []int64{1, 1 << 20} {
		fo := f.follow(t, start.String())
		var got []string
		for {
			events := fo.take(t, most)
			if len(events) == 0 {
				break
			}
			got = append(got, events...)
		}
		if want := []string{"a=1", "a=2", "b=1", "a=3", "b"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	// A token, which has no write id, and every position in between.
	fo := f.follow(t, start.Token().String())
	for left := 5; left > 0; left-- {
		if got := f.follow(t, fo.At().String()).take(t, 1<<20); len(got) != left {
			t.Errorf("after %v: %v", fo.At(), got)
		}
		fo.take(t, 1)
	}
	if r.requests != 0 {
		t.Errorf("%d log steps", r.requests)
	}
}

// A follower of which the window has lost the next events gets them from the log, and changes back without a gap or a
// repetition.
func TestFromTheLogBackToTheWindow(t *testing.T) {
	r := newFakeRedis()
	const windowBytes = 2000 // about ten events
	f, _ := newTestFeed(r, windowBytes)
	f.Restart(r.head(), r.head())
	fo := f.follow(t, f.End().String())
	var want, got []string
	for i := range 100 {
		w := fmt.Sprintf("k%d=%d", i, i)
		want = append(want, w)
		f.live(r.write(w))
		if held := f.WindowBytes(); held > windowBytes {
			t.Fatalf("%d bytes are held", held)
		}
	}
	r.perStep = 40
	for len(got) < 100 {
		events := fo.take(t, 700)
		if len(events) == 0 {
			t.Fatalf("nothing at %v after %d events", fo.At(), len(got))
		}
		got = append(got, events...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if r.requests != 3 {
		t.Errorf("%d log steps of 40 writes for 90", r.requests)
	}
}

// The number of events is bounded too, and an event that is larger than the window passes through the log.
func TestWindowBounds(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<30)
	at := r.head()
	f.Restart(at, at)
	events := make([]Event, 1000)
	for range maxEvents/len(events) + 5 {
		from := at
		for i := range events {
			at.Version++
			events[i] = newEvent(protocol.Position{Head: at}, protocol.Set, "k", "v")
		}
		f.Append(from, events, at)
	}
	if n := len(f.window.span.events); n != maxEvents {
		t.Errorf("%d events", n)
	}
	if size := cap(f.window.all); size > 4*maxEvents {
		t.Errorf("an array of %d events", size)
	}

	f, _ = newTestFeed(r, 1000)
	f.Restart(r.head(), r.head())
	fo := f.follow(t, f.End().String())
	f.live(r.write("large=" + strings.Repeat("x", 5000)))
	if held := f.WindowBytes(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
	if got := fo.take(t, 1); len(got) != 1 || fo.At() != f.End() {
		t.Errorf("%d events, at %v, want %v", len(got), fo.At(), f.End())
	}
}

// Events that do not continue the window replace it: no follower passes the gap unnoticed.
func TestGapInTheWindow(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<20)
	f.Restart(r.head(), r.head())
	fo := f.follow(t, f.End().String())
	f.live(r.write("a=1"))
	r.write("b=1") // the replica gets it with a snapshot
	f.Restart(r.head(), r.head())
	f.live(r.write("c=1"))
	if got := fo.take(t, 1<<20); !slices.Equal(got, []string{"a=1", "b=1", "c=1"}) || r.requests != 1 {
		t.Errorf("%v with %d log steps", got, r.requests)
	}
	// Restart at the end of the window keeps it.
	f.Restart(r.head(), r.head())
	if got := f.follow(t, fmt.Sprintf("%v", protocol.Token{Epoch: 0xe, Version: 102})).take(t, 1<<20); !slices.Equal(got, []string{"c=1"}) || r.requests != 1 {
		t.Errorf("%v with %d log steps", got, r.requests)
	}
}

// A commit that the replica got in parts makes no events: the window begins after it.
func TestCommitInPartsRestartsTheWindow(t *testing.T) {
	r := newFakeRedis()
	f, _ := newTestFeed(r, 1<<20)
	from := r.head()
	f.Restart(from, from)
	r.write("a=1", "b=1")
	st := protocol.LogStep{Head: r.head(), Entries: r.now.entries, Values: []protocol.Value{{Key: "b", Stored: r.now.values["b"], Present: true}}}
	f.AppendStep(from, &st, r.head())
	if f.End() != (protocol.Position{Head: r.head()}) {
		t.Errorf("at %v", f.End())
	}
	fo := f.follow(t, protocol.Position{Head: from}.String())
	if got := fo.take(t, 1<<20); !slices.Equal(got, []string{"a=1", "b=1"}) || r.requests != 1 {
		t.Errorf("%v with %d log steps", got, r.requests)
	}
}

// A replica that has started from a file holds values beyond its head.
func TestFollowFromARestoredFile(t *testing.T) {
	r := newFakeRedis()
	start := r.head()
	r.write("a=1")
	r.write("b=1")
	f, clock := newTestFeed(r, 1<<20)
	f.Restart(start, r.head())
	at := f.End()
	if at.Ahead != r.head() {
		t.Fatalf("at %v", at)
	}
	if got := f.follow(t, at.String()).take(t, 1<<20); len(got) != 0 {
		t.Errorf("%v before the replica has caught up", got)
	}
	f.catchUp(t, r)
	if got := f.follow(t, at.String()).take(t, 1<<20); !slices.Equal(got, []string{"a=1", "b=1"}) {
		t.Error(got)
	}
	r.rollBack(1)
	f.Restart(r.head(), r.head())
	clock.pass(time.Minute)
	if _, err := f.follow(t, at.String()).Take(t.Context(), nil, 1); err == nil {
		t.Error("a client that may have read b=1 was not told that it is gone")
	}
}
