package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/keyset"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
)

// list returns all values, page by page.
func list(t *testing.T, r *Replica) (values []string) {
	t.Helper()
	for page := (Page{}); !page.End; {
		var err error
		if page, err = r.List(t.Context(), page.Last, 7, math.MaxInt64, nil); err != nil {
			t.Fatal(err)
		}
		values = append(values, page.Values...)
	}
	return values
}

// kept returns the list that the replica keeps, or nil.
func (l *keyLists) kept() *keyList {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

// The keys are sorted once and then kept up to date by the feed, until too many of them have been added or deleted, or
// the feed does not have every change since. They are freed when no page is read.
func TestKeysAreSortedOnce(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	r := startReplica(t, b.Addr(), func(c *Config) { c.FeedWindow = 1 << 20 })
	ready(t, r)
	want := []string{}
	put := func(n int, size int) {
		t.Helper()
		for left := n; left > 0; left -= 500 {
			var commit []protocol.Write
			for range min(left, 500) {
				key := fmt.Sprintf("%07d", len(want))
				want = append(want, key+strings.Repeat("x", size))
				commit = append(commit, set(key, want[len(want)-1]))
			}
			results := write(t, p, commit...)
			eventually.True(t, "the writes arrive", func() bool { return r.Reached(AtLeast(results[len(results)-1].Token)) })
		}
	}
	check := func(what string) *keyList {
		t.Helper()
		if got := list(t, r); !slices.Equal(got, want) {
			t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
		}
		return r.keyLists.kept()
	}
	put(100, 10)
	first := check("at first")
	put(100, 10)
	put(100, 10) // the second time, so that keys are merged
	if l := check("after writes"); l != first || len(l.added) != 200 {
		t.Errorf("the keys were sorted again after 200 writes, or %d were added", len(l.added))
	}
	put(addedFloor, 10)
	check("after many new keys")
	eventually.True(t, "the keys are sorted again", func() bool { l := r.keyLists.kept(); return l != first && len(l.added) == 0 })
	second := r.keyLists.kept()
	put(100, 30<<10) // more than the window has
	if l := check("after more than the feed has"); l == second {
		t.Error("the list was kept although the feed does not have every change since")
	}
	r.keyLists.mu.Lock()
	r.keyLists.idle.Reset(time.Millisecond)
	r.keyLists.mu.Unlock()
	eventually.True(t, "the list is freed", func() bool { return r.keyLists.kept() == nil })
	check("after it was freed")
}

// A list is freed although no page has been read since its keys were sorted: the client has got 503 meanwhile and left.
func TestUnusedListIsFreed(t *testing.T) {
	b := redistest.StartEmbedded(t)
	r := startReplica(t, b.Addr())
	ready(t, r)
	l := r.keyLists
	l.idleTime = time.Millisecond
	_, sort := l.update()
	<-sort.done
	eventually.True(t, "the list is freed", func() bool { return l.kept() == nil })
}

// A list is worn when it has many more keys than there are entries, so that it does not keep those of all posts that ever
// were.
func TestWornList(t *testing.T) {
	l := keyList{keys: new(keyset.Set), added: make([]string, addedFloor)}
	if !l.worn(-1) || l.worn(0) || l.worn(addedFloor) {
		t.Error("a list is worn too early or too late")
	}
	if l.added = make([]string, addedFloor+1); !l.worn(addedFloor) {
		t.Error("a list with too many added keys is not worn")
	}
}

// While the keys are being sorted, or posts are missing, List fails when ctx is done.
func TestListWaits(t *testing.T) {
	b := redistest.StartEmbedded(t)
	r := startReplica(t, b.Addr())
	ready(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r.keyLists.sorting = &sorting{done: make(chan struct{})} // never ends
	if _, err := r.List(ctx, "", 1, 1, nil); !errors.Is(err, ErrSorting) {
		t.Errorf("while the keys are being sorted: %v", err)
	}
	never := startReplica(t, "127.0.0.1:1")
	if _, err := never.List(t.Context(), "", 1, 1, nil); !errors.Is(err, ErrLoading) {
		t.Errorf("before the first snapshot: %v", err)
	}
}

// A page that is read within a catch-up has the keys whose events a log step has left out, because a later one brings the
// value that they have by now.
func TestPageWithinACatchUp(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	write(t, p, set("a", "1"))
	r := startReplica(t, b.Addr(), func(c *Config) { c.Probe = time.Hour })
	ready(t, r)
	list(t, r)
	pages, token := make(chan Page, 1), protocol.Token{}
	err := r.turns.call(t.Context(), func(a *applier) {
		token = write(t, p, set("k", "1"))[0].Token
		write(t, p, set("a", "2"))
		write(t, p, set("k", "2"))
		st, err := a.source.fetchStep(t.Context(), protocol.Query{Watermark: a.watermark, Ahead: a.ahead, Limit: stepBytes})
		if err != nil || len(st.Entries) != 3 {
			t.Errorf("%+v, %v", st, err)
			pages <- Page{}
			return
		}
		first := st
		first.Entries, first.Values = st.Entries[:1], slices.DeleteFunc(slices.Clone(st.Values), func(v protocol.Value) bool { return v.Key != "k" })
		step := func(st *protocol.LogStep) {
			a.watermark, a.synced = a.applyStep(st, a.watermark)
			a.publish(st.Head, nil)
		}
		step(&first)
		go func() {
			if !r.Reached(AtLeast(token)) {
				t.Error("the first step does not include the write of k")
			}
			page, err := r.List(t.Context(), "", 100, math.MaxInt64, nil)
			if err != nil {
				t.Error(err)
			}
			pages <- page
		}()
		eventually.True(t, "the list follows", func() bool {
			r.keyLists.mu.Lock()
			defer r.keyLists.mu.Unlock()
			return r.keyLists.list.at.Head == a.watermark
		})
		st.Entries = st.Entries[1:]
		step(&st)
	})
	if err != nil {
		t.Fatal(err)
	}
	if page := <-pages; page.Version.Version < token.Version || !slices.Equal(page.Values, []string{"2", "2"}) {
		t.Errorf("a page at %v has %q, although k was written at %v", page.Version, page.Values, token)
	}
}

// No page lacks a post because its entry in memory is damaged. If the damage was there when the keys were sorted, a snapshot
// replaces it; if it came later, the answer of Redis does.
func TestNoPageLacksADamagedPost(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	want := []string{}
	for i := range 20 {
		want = append(want, fmt.Sprintf("value %02d", i))
		write(t, p, set(fmt.Sprintf("k%02d", i), want[i]))
	}
	var log logtest.Buffer
	r := startReplica(t, b.Addr(), func(c *Config) {
		c.Scrub, c.Logger = -1, slog.New(slog.NewTextHandler(&log, nil))
	})
	ready(t, r)
	damage := func(key string) {
		t.Helper()
		err := r.turns.call(t.Context(), func(*applier) {
			if err := r.FlipLength(key); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	listed := func(what string) {
		t.Helper()
		eventually.Nil(t, func() error {
			page, err := r.List(t.Context(), "", 100, math.MaxInt64, nil)
			if err == nil && !slices.Equal(page.Values, want) {
				t.Fatalf("%s, a page has %q, want %q", what, page.Values, want)
			}
			if err != nil && !errors.Is(err, ErrLoading) {
				t.Fatalf("%s: %v", what, err)
			}
			return err
		})
	}
	damage("k07")
	listed("with damage before the keys are sorted")
	if !strings.Contains(log.String(), "MEMORY IS DAMAGED") {
		t.Error("the log does not report the damage")
	}
	damage("k11")
	listed("with damage after the keys were sorted")
}
