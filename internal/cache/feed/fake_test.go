package feed

import (
	"context"
	"encoding/binary"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
)

// fakeRedis is Redis's log and values. FetchStep and the functions that write may run concurrently.
type fakeRedis struct {
	mu       sync.Mutex // guards the rest
	now      redisState
	past     []redisState // states after each commit
	nextID   uint64
	perStep  int    // number of writes whose values a log step returns at most
	behind   int    // number of commits that the Redis replica lacks, which FetchStep asks; 0 without one
	err      error  // error of the next log steps
	requests int    // number of log steps
	onStep   func() // called after each log step, with mu locked
}

type redisState struct {
	head    protocol.Head
	entries []protocol.LogEntry
	values  map[string]string // stored values by key
}

func newFakeRedis() *fakeRedis {
	return &fakeRedis{now: redisState{head: protocol.Head{Epoch: 0xe, Version: 100, WriteID: 1}, values: map[string]string{}}, nextID: 1, perStep: math.MaxInt}
}

// write commits writes, each "key=value" or "key" for a delete, and returns the commit as a message has it.
func (r *fakeRedis) write(writes ...string) *protocol.Commit {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.commit(writes...)
}

func (r *fakeRedis) commit(writes ...string) *protocol.Commit {
	s := r.now
	r.past = append(r.past, s)
	s.values = maps.Clone(s.values)
	r.nextID++
	e := protocol.LogEntry{WriteID: r.nextID, Previous: s.head.WriteID, Writes: len(writes)}
	e.Version = s.head.Version + uint64(len(writes))
	s.head = protocol.Head{Epoch: s.head.Epoch, Version: e.Version, WriteID: r.nextID}
	c := &protocol.Commit{Head: s.head, Previous: e.Previous}
	var logged []byte
	for i, text := range writes {
		w := protocol.Write{Op: protocol.Delete}
		var value string
		if w.Key, value, _ = strings.Cut(text, "="); w.Key != text {
			w.Op, w.Value = protocol.Set, []byte(value)
		}
		logged = protocol.AppendLogged(logged, &w)
		c.Records = append(c.Records, protocol.Record{Op: w.Op, Key: w.Key, Value: value})
		if w.Op == protocol.Delete {
			delete(s.values, w.Key)
			continue
		}
		stored := binary.BigEndian.AppendUint64(nil, s.head.Epoch)
		stored = binary.BigEndian.AppendUint64(stored, e.Version-uint64(len(writes)-1-i))
		stored = binary.BigEndian.AppendUint64(stored, e.WriteID)
		s.values[w.Key] = string(protocol.AppendFrame(stored, &w, time.Unix(0, 0)))
	}
	e.Logged = string(logged)
	s.entries = append(s.entries[:len(s.entries):len(s.entries)], e)
	r.now = s
	return c
}

// rollBack returns to the state before the last commits.
func (r *fakeRedis) rollBack(commits int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.past[len(r.past)-commits]
	r.past = r.past[:len(r.past)-commits]
}

// trim keeps the newest entries of the log.
func (r *fakeRedis) trim(keep int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.entries = r.now.entries[len(r.now.entries)-keep:]
}

func (r *fakeRedis) head() protocol.Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now.head
}

// state returns the values by key.
func (r *fakeRedis) state(t *testing.T) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	values := map[string]string{}
	for key, stored := range r.now.values {
		_, rec, err := protocol.DecodeStored(stored)
		if err != nil {
			t.Fatal(err)
		}
		values[key] = rec.Value
	}
	return values
}

func (r *fakeRedis) MayLag() bool { return r.behind > 0 }

func (r *fakeRedis) FetchStep(_ context.Context, q protocol.Query) (st protocol.LogStep, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behind > 0 {
		return r.fetchFrom(&r.past[len(r.past)-r.behind], q)
	}
	return r.fetchFrom(&r.now, q)
}

func (r *fakeRedis) FetchNewest(_ context.Context, q protocol.Query) (st protocol.LogStep, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetchFrom(&r.now, q)
}

func (r *fakeRedis) fetchFrom(s *redisState, q protocol.Query) (st protocol.LogStep, err error) {
	r.requests++
	if r.err != nil {
		return st, r.err
	}
	if r.onStep != nil {
		defer r.onStep()
	}
	st.Head = s.head
	seen, room := map[string]bool{}, r.perStep
	for _, e := range s.entries {
		if e.Version == q.Ahead.Version {
			st.Ahead = e.WriteID
		}
		if e.Version == q.Watermark.Version {
			st.At = e.WriteID
		}
		if e.Version <= q.Watermark.Version || room == 0 {
			continue
		}
		skip, read := 0, 0
		if e.WriteID == q.Part.WriteID {
			skip = q.Part.Writes
		}
		e.Each(func(_ uint64, _ protocol.Op, key string) {
			switch {
			case skip > 0:
				skip--
				read++
			case room > 0:
				room--
				read++
				if stored, present := s.values[key]; !seen[key] {
					seen[key] = true
					st.Values = append(st.Values, protocol.Value{Key: key, Stored: stored, Present: present})
				}
			}
		})
		if read < e.Writes {
			st.Part = protocol.Part{WriteID: e.WriteID, Writes: read}
			break
		}
		st.Entries = append(st.Entries, e)
	}
	return st, nil
}

// newTestFeed returns a feed that reads r's log without pauses between two log steps.
func newTestFeed(r *fakeRedis, windowBytes int64) (*Feed, *testClock) {
	f, c := New(windowBytes, r), &testClock{now: time.Unix(1e9, 0)}
	f.SetClock(c.read)
	return f, c
}

// testClock is a clock that only the test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *testClock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// follow returns a follower at the text of a position.
func (f *Feed) follow(t *testing.T, position string) *Follower {
	t.Helper()
	at, err := protocol.ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	fo := f.Follow(at)
	t.Cleanup(fo.Close)
	return fo
}

// take returns the next events as text: "version key=value" or "version key".
func (fo *Follower) take(t *testing.T, most int64) []string {
	t.Helper()
	events, err := fo.Take(t.Context(), nil, most)
	if err != nil {
		t.Fatalf("at %v: %v", fo.At(), err)
	}
	return texts(t, events)
}

func texts(t *testing.T, events []Event) (all []string) {
	t.Helper()
	for _, e := range events {
		if e.ID != e.At.String() {
			t.Errorf("id %s at %v", e.ID, e.At)
		}
		text := e.Key
		if !e.Deleted {
			text += "=" + e.Value
		}
		all = append(all, text)
	}
	return all
}

// live appends a commit as a message that the replica has applied.
func (f *Feed) live(c *protocol.Commit) {
	before := protocol.Head{Epoch: c.Head.Epoch, Version: c.Version(0) - 1, WriteID: c.Previous}
	f.Append(before, AppendCommit(nil, c), c.Head)
}

// catchUp appends a log step of at most perStep writes after the end of the window.
func (f *Feed) catchUp(t *testing.T, r *fakeRedis) {
	t.Helper()
	from := f.End()
	st, err := r.FetchStep(t.Context(), protocol.Query{Watermark: from.Head, Ahead: from.Ahead})
	if err != nil {
		t.Fatal(err)
	}
	to := from.Head
	if n := len(st.Entries); n > 0 {
		to.Version, to.WriteID = st.Entries[n-1].Version, st.Entries[n-1].WriteID
	}
	f.AppendStep(from.Head, &st, to)
}
