package history

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// script builds a history from lines with one operation each, which begin with the times of its start and
// end:
//
//	1-2 set k v @ 5      acknowledged as version 5 of epoch 1
//	1-2 set k v @ 2/5    acknowledged as version 5 of epoch 2
//	1-2 set k v unknown  (or refused)
//	1-2 del k @ 5
//	3-4 r1 k = v @ 5     reader r1 returns v with version 5
//	3-4 r1 k absent
//	5-5 barrier r1 @ 5
//	6-7 break
//	redis k = v @ 5      the final state
//	final r1 k = v @ 5
func script(t *testing.T, text string) (*History, Final) {
	t.Helper()
	h := New()
	var now time.Duration
	h.now = func() time.Duration { return now }
	final := Final{Redis: State{}, Readers: map[string]State{}}
	type event struct {
		at time.Duration
		do func()
	}
	var events []event
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "redis":
			e, v := parsePosition(t, f[5])
			final.Redis[f[1]] = EntryOf(e, v, []byte(f[3]))
			continue
		case "final":
			if final.Readers[f[1]] == nil {
				final.Readers[f[1]] = State{}
			}
			if len(f) > 2 {
				e, v := parsePosition(t, f[6])
				final.Readers[f[1]][f[2]] = EntryOf(e, v, []byte(f[4]))
			}
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		began, ended := parseTime(t, from), parseTime(t, to)
		last := f[len(f)-1]
		var begin, end func()
		switch f[1] {
		case "set", "del":
			var w *Write
			begin = func() {
				if f[1] == "set" {
					w = h.Write(f[2], []byte(f[3]))
				} else {
					w = h.Delete(f[2])
				}
			}
			end = func() {
				switch last {
				case "unknown":
					w.Unknown()
				case "refused":
					w.Refused()
				default:
					w.Ack(parsePosition(t, last))
				}
			}
		case "barrier":
			begin = func() {
				e, v := parsePosition(t, last)
				h.ReaderReached(f[2], e, v)
			}
			end = func() {}
		case "break":
			begin = func() { h.breaks = append(h.breaks, gap{now, never}) }
			end = func() { h.breaks[len(h.breaks)-1].to = now }
		case "run-ahead":
			begin, end = h.KeysRunAhead, func() {}
		default:
			var r Read
			begin = func() { r = h.Read(f[1], f[2]) }
			end = func() {
				switch last {
				case "absent":
					r.Absent()
				case "unavailable":
					r.Unavailable()
				default:
					e, v := parsePosition(t, last)
					r.Value(e, v, []byte(f[4]))
				}
			}
		}
		events = append(events, event{began, begin}, event{ended, end})
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	for _, e := range events {
		now = e.at
		e.do()
	}
	if len(final.Redis) == 0 && len(final.Readers) == 0 && !strings.Contains(text, "empty") {
		final.Redis = nil
	}
	return h, final
}

func parseTime(t *testing.T, s string) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n)
}

func parsePosition(t *testing.T, s string) (epoch, version uint64) {
	t.Helper()
	if before, after, ok := strings.Cut(s, "/"); ok {
		epoch, s = uint64(parseTime(t, before)), after
	} else {
		epoch = 1
	}
	return epoch, uint64(parseTime(t, s))
}

func TestRules(t *testing.T) {
	tests := []struct {
		name string
		text string
		want string // violated promises, in order
	}{
		{"new after old", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = a @ 1\n 7-8 r k = b @ 2", ""},
		{"old after new", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = b @ 2\n 7-8 r k = a @ 1", "P2"},
		{"old beside new", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-7 r k = b @ 2\n 7-8 r k = a @ 1", ""},
		{"old after new, on another reader", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = b @ 2\n 7-8 q k = a @ 1", ""},
		{"old after new, in another epoch", "1-2 set k a @ 1/1\n 3-4 set k b @ 2/2\n 5-6 r k = b @ 2/2\n 7-8 r k = a @ 1/1", ""},
		{"old after new, over a break", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = b @ 2\n 6-7 break\n 8-9 r k = a @ 1", ""},
		{"old after new, before a break", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = b @ 2\n 7-8 r k = a @ 1\n 9-9 break", "P2"},
		{"old after new, after a break", "1-2 break\n 3-4 set k a @ 1\n 5-6 set k b @ 2\n 7-8 r k = b @ 2\n 9-9 r k = a @ 1", "P2"},
		{"old after new, new of unknown outcome", "1-2 set k a @ 1\n 3-4 set k b unknown\n 5-6 r k = b @ 2\n 7-8 r k = a @ 1", "P2"},

		{"old after new, both in a break", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = b @ 2\n 6-9 break\n 7-8 r k = a @ 1", ""},
		{"old after new, new written in a break", "1-2 set k a @ 1\n 3-9 break\n 4-5 set k b @ 2\n 6-7 r k = b @ 2\n 10-11 r k = a @ 1", ""},
		{"old after new, new from either side of a break", "1-2 set k a unknown\n 3-4 break\n 5-6 set k a unknown\n 5-6 set k b @ 3\n 7-8 r k = a @ 5\n 9-9 r k = b @ 3", ""},

		{"absent before the write", "1-2 r k absent\n 3-4 set k a @ 1", ""},
		{"absent, lagging", "1-2 set k a @ 1\n 3-4 r k absent", ""},
		{"absent after a value", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 5-6 r k absent", "P2"},
		{"absent after a value and a delete", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 del k @ 2\n 6-7 r k absent", ""},
		{"absent after a value and an older delete", "1-2 set k a @ 1\n 3-4 del k @ 2\n 5-6 set k b @ 3\n 7-8 r k = b @ 3\n 9-9 r k absent", "P2"},
		{"absent before the delete was sent", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 5-6 r k absent\n 7-8 del k @ 2", "P2"},
		{"absent while the delete is in flight", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 5-7 r k absent\n 6-9 del k @ 2", ""},
		{"absent by a delete of unknown outcome", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 del k unknown\n 6-7 r k absent", ""},
		{"absent by a refused delete", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 del k refused\n 6-7 r k absent", "P2"},
		{"absent by a delete of another key", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 del j @ 2\n 6-7 r k absent", "P2"},
		{"absent by a delete in another epoch", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 del k @ 2/1\n 6-7 r k absent", ""},
		{"absent after a break", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 4-5 break\n 6-7 r k absent", ""},

		{"value, absence, the value again", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 1-9 del k @ 2\n 5-6 r k absent\n 7-8 r k = a @ 1", "P2"},
		{"value, absence, a newer value", "1-2 set k a @ 1\n 2-3 del k @ 2\n 3-4 set k b @ 3\n 5-6 r k = a @ 1\n 6-7 r k absent\n 8-9 r k = b @ 3", ""},
		{"value, absence, a value before the delete", "1-2 set k a @ 1\n 2-3 set k b @ 2\n 3-4 del k @ 3\n 4-5 r k = a @ 1\n 6-7 r k absent\n 8-9 r k = b @ 2", "P2"},
		{"values and absences, the last value again", "1-1 set k a @ 1\n 2-2 del k @ 2\n 3-3 set k b @ 3\n 4-4 del k @ 4\n 5-6 r k = a @ 1\n 7-8 r k absent\n 9-10 r k = b @ 3\n 11-12 r k absent\n 13-14 r k = b @ 3", "P2"},
		{"absence that may be before the first write", "1-2 set k a @ 1\n 2-3 del k @ 2\n 4-5 r k absent\n 6-7 r k = a @ 1", ""},
		{"absence that a barrier puts after the delete", "1-2 set k a @ 1\n 2-3 del k @ 2\n 4-4 barrier r @ 2\n 5-6 r k absent\n 7-8 r k = a @ 1", "P2"},

		{"false absence, a newer answer before", "1-2 set k a @ 1\n 3-4 set j b @ 2\n 5-6 r j = b @ 2\n 7-8 r k absent", "P6"},
		{"absence, an older answer before", "1-2 set j b @ 1\n 3-4 set k a @ 2\n 5-6 r j = b @ 1\n 7-8 r k absent", ""},
		{"absence beside a newer answer", "1-2 set k a @ 1\n 3-4 set j b @ 2\n 5-7 r j = b @ 2\n 7-8 r k absent", ""},
		{"absence, another reader's newer answer before", "1-2 set k a @ 1\n 3-4 set j b @ 2\n 5-6 q j = b @ 2\n 7-8 r k absent", ""},
		{"absence, a newer answer before, keys run ahead", "0-0 run-ahead\n 1-2 set k a @ 1\n 3-4 set j b @ 2\n 5-6 r j = b @ 2\n 7-8 r k absent", ""},
		{"absence, a newer answer and a delete", "1-2 set k a @ 1\n 3-4 set j b @ 2\n 5-6 r j = b @ 2\n 6-9 del k @ 3\n 7-8 r k absent", ""},
		{"false absence after a barrier", "0-0 run-ahead\n 1-2 set k a @ 1\n 3-3 barrier r @ 1\n 4-5 r k absent", "P6"},
		{"absence after a barrier before a break", "1-2 set k a @ 1\n 3-3 barrier r @ 1\n 4-4 break\n 5-6 r k absent", ""},
		{"absence after a barrier of the lost history", "1-2 set j b @ 2\n 3-4 break\n 5-5 barrier r @ 2\n 6-7 set k a @ 1\n 8-9 r k absent", ""},
		{"old value after a barrier", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-5 barrier r @ 2\n 6-7 r k = a @ 1", "P2"},
		{"old value before a barrier", "1-2 set k a @ 1\n 3-4 set k b @ 2\n 5-6 r k = a @ 1\n 7-7 barrier r @ 2", ""},
		{"unavailable proves nothing", "1-2 set k a @ 1\n 3-4 r k = a @ 1\n 5-6 r k unavailable", ""},

		{"wrong bytes", "1-2 set k a @ 1\n 3-4 r k = b @ 1", "values"},
		{"another key's bytes", "1-2 set k a @ 1\n 1-2 set j b @ 2\n 3-4 r k = b @ 2", "values"},
		{"wrong version", "1-2 set k a @ 1\n 3-4 r k = a @ 2", "values"},
		{"a version that was a delete", "1-2 set k a unknown\n 1-2 del k @ 2\n 3-4 r k = a @ 2", "values"},
		{"a key that nobody wrote", "3-4 r k = a @ 1", "values"},
		{"refused, and yet there", "1-2 set k a refused\n 3-4 r k = a @ 1", "values"},
		{"from the future", "1-2 r k = a @ 1\n 3-4 set k a @ 1", "values"},
		{"from the future, unknown", "1-2 r k = a @ 1\n 3-4 set k a unknown", "values"},
		{"before the acknowledgement", "1-9 set k a @ 1\n 3-4 r k = a @ 1", ""},
		{"of unknown outcome", "1-2 set k a unknown\n 3-4 r k = a @ 1", ""},
		{"executed twice", "1-2 set k a unknown\n 3-4 r k = a @ 1\n 5-6 r k = a @ 2", "values"},
		{"the same bytes twice", "1-2 set k a unknown\n 1-2 set k a unknown\n 3-4 r k = a @ 1\n 5-6 r k = a @ 2", ""},
		{"the same position after a break", "1-2 set k a @ 1\n 3-4 break\n 5-6 set k b @ 1\n 7-8 r k = a @ 1\n 8-9 r k = b @ 1", ""},

		{"versions against time", "1-2 set k a @ 2\n 3-4 set j b @ 1", "order"},
		{"versions against time, over a break", "1-2 set k a @ 2\n 2-3 break\n 4-5 set j b @ 1", ""},
		{"one version twice", "1-9 set k a @ 2\n 3-4 set j b @ 2", "order"},
		{"one version twice, over a break", "1-3 set k a @ 2\n 2-4 break\n 3-5 set j b @ 2", ""},

		{"kept", "1-2 set k a @ 1\n redis k = a @ 1\n final r k = a @ 1", ""},
		{"lost", "1-2 set k a @ 1\n redis empty = a @ 9", "values P3"},
		{"lost, nothing left", "1-2 set k a @ 1\n final r", "P3"},
		{"lost in a break", "1-2 set k a @ 1\n 3-4 break\n final r", ""},
		{"written and lost in a break", "1-9 break\n 3-4 set k a @ 1\n final r", ""},
		{"lost after a break", "1-2 break\n 3-4 set k a @ 1\n final r", "P3"},
		{"overwritten by an older one", "1-2 set k a @ 1\n 3-4 set k b @ 2\n redis k = a @ 1", "P3"},
		{"overwritten by an unknown one", "1-2 set k a @ 1\n 3-4 set k b unknown\n redis k = b @ 2", ""},
		{"an older epoch in the end", "1-2 set k a @ 1/1\n 3-4 set k b @ 2/1\n redis k = a @ 1/1", "P3"},
		{"deleted", "1-2 set k a @ 1\n 3-4 del k @ 2\n final r", ""},
		{"deleted by an unknown one", "1-2 set k a @ 1\n 3-4 del k unknown\n final r", ""},
		{"deleted before", "1-2 del k @ 1\n 3-4 set k a @ 2\n final r", "P3"},
		{"deleted in the epoch before", "1-2 del k @ 1/1\n 3-4 set k a @ 2/1\n final r", "P3"},
		{"deleted, and yet there", "1-2 set k a @ 1\n 3-4 del k @ 2\n redis k = a @ 1", "P3"},

		{"a reader lacks a key", "1-2 set k a @ 1\n redis k = a @ 1\n final r", "P1"},
		{"a reader has a key too many", "1-2 set k a @ 1\n 3-4 del k @ 2\n final r k = a @ 1", "P1"},
		{"a reader has another version", "1-2 set k a @ 1\n 3-4 set k b @ 2\n redis k = b @ 2\n final r k = a @ 1", "P1"},
		{"a reader has other bytes", "1-2 set k a @ 1\n redis k = a @ 1\n final r k = b @ 1", "P1"},
		{"a reader has another epoch", "1-2 set k a @ 1\n redis k = a @ 1\n final r k = a @ 2/1", "P1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, final := script(t, tt.text)
			var got []string
			for _, v := range h.Check(final) {
				got = append(got, v.Promise)
				t.Log(v)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("violations %q, want %q", s, tt.want)
			}
		})
	}
}

func TestAccountNamesTheOperations(t *testing.T) {
	h, final := script(t, "1000-2000 set k a @ 1\n 3000-4000 set k b @ 2\n 5000-6000 r k = b @ 2\n 7000-8000 r k = a @ 1")
	v := h.Check(final)
	if len(v) != 1 {
		t.Fatalf("%d violations, want 1", len(v))
	}
	for _, part := range []string{"P2: ", `"k"`, " of r ", "version 1", "version 2", "7µs to 8µs", "5µs to 6µs"} {
		if !strings.Contains(v[0].String(), part) {
			t.Errorf("the account %q does not contain %q", v[0], part)
		}
	}
}

// recorder is a testing.TB that only counts errors.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Helper()               {}
func (r *recorder) Error(...any)          { r.errors++ }
func (r *recorder) Errorf(string, ...any) { r.errors++ }

func TestVerifyFailsTheTest(t *testing.T) {
	h := New()
	h.Write("k", nil).Ack(1, 1)
	r := &recorder{}
	h.Verify(r, Final{Redis: State{"k": EntryOf(1, 1, nil)}})
	if r.errors != 0 {
		t.Errorf("%d errors for a correct history", r.errors)
	}
	many := State{}
	for i := range 100 {
		many[fmt.Sprint(i)] = Entry{}
	}
	h.Verify(r, Final{Redis: many})
	if r.errors != 21 {
		t.Errorf("%d errors for more than 100 violations, want 20 and a summary", r.errors)
	}
}

func TestBreakSpansItsFault(t *testing.T) {
	h := New()
	var now time.Duration
	h.now = func() time.Duration { now++; return now }
	var open gap
	h.Break(func() {
		open = h.breaks[0]
		h.Write("k", nil).Ack(1, 1) // may be lost
	})
	if w, b := h.writes[0], h.breaks[0]; open.to != never || b.from >= w.invoked || b.to <= w.returned {
		t.Errorf("break %v (%v during the fault), but a write during it from %v to %v", b, open, w.invoked, w.returned)
	}
	if v := h.Check(Final{Redis: State{}}); len(v) != 0 {
		t.Error(v)
	}
}

func TestConcurrentRecording(t *testing.T) {
	h := New()
	var mu sync.Mutex // serializes the writes, as a server does
	version := uint64(0)
	state := map[string]uint64{}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 200 {
				key := fmt.Sprint(j % 5)
				w := h.Write(key, []byte{byte(i), byte(j)})
				mu.Lock()
				version++
				v := version
				state[key] = v
				mu.Unlock()
				w.Ack(1, v)
				h.Read(fmt.Sprint("reader-", i%2), "never written").Absent()
				h.ReaderReached(fmt.Sprint("reader-", i%2), 1, v)
			}
		})
	}
	wg.Go(func() { h.Break(func() {}) })
	wg.Wait()
	if v := h.Check(Final{}); len(v) != 0 {
		t.Error(v)
	}
	if len(h.writes) != 800 {
		t.Errorf("%d writes recorded, want 800", len(h.writes))
	}
}

// BenchmarkCheck records and checks a history of a million operations.
func BenchmarkCheck(b *testing.B) {
	for b.Loop() {
		h := New()
		final := Final{Redis: State{}}
		version := map[string]uint64{}
		for i := range 200_000 {
			key := fmt.Sprint("key-", i%10_000)
			value := fmt.Append(nil, i)
			w := h.Write(key, value)
			version[key] = uint64(i + 1)
			w.Ack(1, version[key])
			final.Redis[key] = EntryOf(1, version[key], value)
			for r := range 4 {
				h.Read(fmt.Sprint("reader-", r), key).Value(1, version[key], value)
			}
		}
		if v := h.Check(final); len(v) > 0 {
			b.Fatal(v)
		}
	}
}
