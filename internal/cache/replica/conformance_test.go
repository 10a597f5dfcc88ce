package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// One suite over the embedded Redis and a real one.

func TestWritesReachReplicas(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		first := startReplica(t, addr)
		ready(t, first)
		results := write(t, p, set("a", "one"))
		if results[0].Outcome != protocol.Created || results[0].Token.Version != 1 {
			t.Fatalf("first write: %+v", results[0])
		}
		holds(t, first, "a", "one")
		if got := write(t, p, set("a", "two"))[0]; got.Outcome != protocol.Replaced || got.Token.Version != 2 || got.Token.Epoch != results[0].Token.Epoch {
			t.Fatalf("second write: %+v", got)
		}
		holds(t, first, "a", "two")

		late := startReplica(t, addr) // its snapshot has the values that were written before it started
		ready(t, late)
		if e, found := late.Get([]byte("a")); found != store.Hit || e.Value != "two" || entryToken(e) != (protocol.Token{Epoch: results[0].Token.Epoch, Version: 2}) {
			t.Fatalf("a late replica has %+v %v", e, found)
		}

		if got := write(t, p, protocol.Write{Op: protocol.Delete, Key: "a"})[0]; got.Outcome != protocol.Deleted {
			t.Fatalf("delete: %+v", got)
		}
		for _, r := range []*Replica{first, late} {
			holds(t, r, "a", "")
		}
		if got := write(t, p, protocol.Write{Op: protocol.Delete, Key: "a"})[0]; got.Outcome != protocol.NotFound || got.Token.Version != 3 {
			t.Fatalf("delete of nothing: %+v", got)
		}
	})
}

func TestBatchIsOrderedAndAtomic(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		version := uint64(0)
		for _, step := range []struct {
			outcomes string
			writes   []protocol.Write
		}{
			{"CRC", []protocol.Write{set("k", "1"), set("k", "2"), set("l", "x")}}, // all keys are new
			{"RRR", []protocol.Write{set("k", "3"), set("l", "y"), set("k", "4")}}, // no key is new
			{"CRRCR", []protocol.Write{set("m", "1"), set("l", "z"), set("m", "2"), set("n", "1"), set("k", "5")}},
		} {
			var outcomes strings.Builder
			for _, res := range write(t, p, step.writes...) {
				outcomes.WriteByte(byte(res.Outcome))
				if version++; res.Token.Version != version {
					t.Errorf("version %d, want %d", res.Token.Version, version)
				}
			}
			if outcomes.String() != step.outcomes {
				t.Errorf("outcomes %s, want %s", outcomes.String(), step.outcomes)
			}
		}
		for key, value := range map[string]string{"k": "5", "l": "z", "m": "2", "n": "1"} {
			holds(t, r, key, value)
		}
		late := startReplica(t, addr) // reads the values in Redis, not the messages
		ready(t, late)
		holds(t, late, "m", "2")
		if e, _ := late.Get([]byte("m")); e.Version != 9 {
			t.Errorf("the last write of a key has version %d in Redis, want 9", e.Version)
		}
		// A delete and a write with a condition need a call of their own.
		for _, w := range []protocol.Write{{Op: protocol.Delete, Key: "k"}, {Op: protocol.Set, Key: "k", If: protocol.Condition{Absent: true}}} {
			if _, err := p.Write(t.Context(), set("o", "1"), w); err == nil || errors.Is(err, publisher.ErrUnknown) || errors.Is(err, publisher.ErrNotWritten) {
				t.Errorf("%+v among others: %v", w, err)
			}
		}
	})
}

// A log step is bounded in writes and in bytes, ends between commits only, and the next one continues.
func TestLogStepsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		src := newRedisSource(nodetest.New(t, addr), protocol.NewKeys(protocol.DefaultNamespace))
		commit := func(writes, size int) {
			batch := make([]protocol.Write, writes)
			for i := range batch {
				batch[i] = set(fmt.Sprint("k", i), strings.Repeat("x", size))
			}
			write(t, p, batch...)
		}
		for range 20 {
			commit(publisher.MaxWrites, 1)
		}
		for range 150 { // more than a page of the log
			commit(1, 1)
		}
		for i := range 12 {
			commit(1, 1<<20)
			write(t, p, set(fmt.Sprint("large", i), strings.Repeat("x", 1<<20)))
		}
		var w protocol.Head
		var at protocol.Part
		var steps []string
		for end := false; !end; {
			st, err := src.fetchStep(t.Context(), protocol.Query{Watermark: w, Limit: stepBytes, Part: at})
			if err != nil {
				t.Fatal(err)
			}
			if verdict := judge(&st, protocol.Head{Epoch: st.Head.Epoch, Version: w.Version, WriteID: w.WriteID}, protocol.Head{}); verdict != stepContinues {
				t.Fatalf("from %+v: %s", w, verdict)
			}
			writes, size := 0, 0
			for _, e := range st.Entries {
				writes += e.Writes
			}
			for _, v := range st.Values {
				size += len(v.Stored)
			}
			if writes >= protocol.StepWrites+publisher.MaxWrites || size >= stepBytes+2<<20 {
				t.Errorf("a log step of %d writes and %d bytes", writes, size)
			}
			w, end = reach(&st, protocol.Head{Epoch: st.Head.Epoch, Version: w.Version, WriteID: w.WriteID})
			at = st.Part
			steps = append(steps, fmt.Sprint(writes))
		}
		// The first two are bounded by writes, the others by bytes.
		if got, want := strings.Join(steps[:2], " "), "8000 8000"; got != want || len(steps) < 8 {
			t.Errorf("log steps of %v writes", steps)
		}
	})
}

// A log entry that write.lua did not make, or that is damaged, leads to a snapshot; the replica does not get stuck at it.
func TestForeignLogEntry(t *testing.T) {
	k := protocol.NewKeys(protocol.DefaultNamespace)
	for _, packed := range []string{
		"", "x", "01234567", "0123456701234567", "0123456701234567Shello", "0123456701234567\x01", "0123456701234567\x01\xff\xffkey",
		"0123456701234567\x01\x00\x01k\x07", "0123456701234567\x03\x00\x01k",
	} {
		t.Run(fmt.Sprintf("%.20q", packed), func(t *testing.T) {
			each(t, func(t *testing.T, addr string) {
				p, r, c := newPublisher(t, addr), startReplica(t, addr), client(t, addr)
				ready(t, r)
				first := write(t, p, set("a", "1"))[0].Token
				reached(t, r, first)
				if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: k.Log, ID: "2-0", Values: []string{"e", packed}}).Err(); err != nil {
					t.Fatal(err)
				}
				if err := c.Set(t.Context(), k.Seq, 2, 0).Err(); err != nil {
					t.Fatal(err)
				}
				reached(t, r, protocol.Token{Epoch: first.Epoch, Version: 2})
				token := write(t, p, set("a", "3"))[0].Token
				if token.Version != 3 {
					t.Fatalf("version %d", token.Version)
				}
				reached(t, r, token)
				holds(t, r, "a", "3")
				late := startReplica(t, addr)
				ready(t, late)
				holds(t, late, "a", "3")
			})
		})
	}
}

// Values of which a usual page is too large for the link are read in smaller pages.
func TestSnapshotOverASlowLink(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	const keys = 14
	for i := range keys {
		write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 1<<20)))
	}
	link := faultnet.NewProxy(t, server.Addr())
	link.Throttle(faultnet.ToClient, 6<<20) // 8 of them take longer than the timeout
	r := startReplica(t, link.Addr())
	ready(t, r)
	for i := range keys {
		if e, found := r.Get(fmt.Append(nil, "k", i)); found != store.Hit || len(e.Value) != 1<<20 {
			t.Errorf("k%d is %v with %d bytes", i, found, len(e.Value))
		}
	}
}

// A link may be too slow for pages of the usual size: each failed snapshot makes the next one read smaller pages.
func TestSnapshotFindsItsPageSize(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	const keys = 2000 // more than one SCAN returns
	for i := range keys {
		write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 4<<10)))
	}
	link := faultnet.NewProxy(t, server.Addr())
	link.Throttle(faultnet.ToClient, 600<<10)
	r := startReplica(t, link.Addr())
	ready(t, r)
	if s := r.Status(); s.Entries != keys {
		t.Errorf("%d entries, want %d", s.Entries, keys)
	}
}

// A SCAN that finds no key of the shard for long delays neither misses nor the log.
func TestSnapshotAmongForeignKeys(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t, redistest.Config("enable-debug-command yes"))
	p := newPublisher(t, server.Addr())
	for i := range 4 {
		write(t, p, set(fmt.Sprint("k", i), "old"))
	}
	c := server.Client(t)
	for i := range 4 { // each takes less time than a client waits
		if err := c.Do(t.Context(), "DEBUG", "POPULATE", 300_000, fmt.Sprint("foreign", i), 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := startReplica(t, server.Addr())
	ready(t, r)
	k := protocol.NewKeys(protocol.DefaultNamespace)
	if err := c.Set(t.Context(), k.Epoch, "anotherE", 0).Err(); err != nil { // makes the next probe take a snapshot
		t.Fatal(err)
	}
	eventually.True(t, "a snapshot", func() bool { return r.Status().Snapshot != nil })
	fetched := 0
	for ; r.Status().Snapshot != nil; fetched++ {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // the longest wait of a read
		_, present, err := r.Fetch(ctx, "none", Min{})
		cancel()
		if err != nil || present {
			t.Fatalf("fetch %d during the snapshot: present=%v, %v", fetched, present, err)
		}
	}
	if fetched < 10 {
		t.Errorf("%d fetches during the snapshot, want many", fetched)
	}
}

// Two Sets of a new key in one batch leave ristretto with the older value, so the replica must not do that.
func TestCreateAndUpdateBackToBack(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p, r := newPublisher(t, b.Addr()), startReplica(t, b.Addr())
		ready(t, r)
		keys := 20_000
		if !b.Real() {
			keys = 2_000 // miniredis scans the whole log for each write
		}
		var last protocol.Token
		for i := 0; i < keys; i += 100 {
			var batch []protocol.Write
			for k := i; k < i+100; k++ {
				key := fmt.Sprint("key", k)
				batch = append(batch, set(key, "created"), set(key, "updated"))
			}
			results := write(t, p, batch...)
			last = results[len(results)-1].Token
		}
		reached(t, r, last)
		stale := 0
		for k := range keys {
			if e, _ := r.Get(fmt.Append(nil, "key", k)); e.Value != "updated" {
				stale++
			}
		}
		if stale > 0 {
			t.Errorf("%d of %d are stale", stale, keys)
		}
	})
}

func reached(t testing.TB, r *Replica, token protocol.Token) {
	t.Helper()
	eventually.Nil(t, func() error {
		if s := r.Status(); s.Applied.Epoch != token.Epoch || s.Applied.Version < token.Version {
			return fmt.Errorf("at %+v, want %v", s, token)
		}
		return nil
	})
}

func TestMissesAreAnsweredByRedis(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		big := strings.Repeat("x", 40<<10)
		for i := range 20 {
			write(t, p, set(fmt.Sprint("k", i), fmt.Sprint(i, big)))
		}
		r := startReplica(t, addr, func(c *Config) { c.Local.MaxSize = 256 << 10 })
		ready(t, r)
		if s := r.Status(); s.Complete || s.Bytes > s.MaxBytes {
			t.Fatalf("800 KiB in 256 KiB: %+v", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for i := range 20 {
			e, present, err := r.Fetch(ctx, fmt.Sprint("k", i), Min{})
			if err != nil || !present || e.Value != fmt.Sprint(i, big) || e.Version != uint64(i+1) {
				t.Errorf("k%d: %d bytes, version %d, %v, %v", i, len(e.Value), e.Version, present, err)
			}
		}
		if _, present, err := r.Fetch(ctx, "unknown", Min{}); present || err != nil {
			t.Errorf("unknown: %v, %v", present, err)
		}
		if _, found := r.Get([]byte("unknown")); found != store.Miss {
			t.Errorf("a replica without the whole data set answered %v from memory", found)
		}
	})
}

func TestWaitFor(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		token := write(t, p, set("a", "b"))[0].Token
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		reached(t, r, token)
		for range 100 {
			token = write(t, p, set("a", "c"))[0].Token
			if e, err := readSince(ctx, r, "a", AtLeast(token)); err != nil || e.Version < token.Version {
				t.Fatalf("version %d after waiting for %d: %v", e.Version, token.Version, err)
			}
		}
		token.Version++
		if _, err := readSince(ctx, r, "a", AtLeast(token)); !errors.Is(err, errBehind) {
			t.Errorf("a version from the future: %v", err)
		}
		if e, err := readSince(ctx, r, "a", AtLeast(protocol.Token{Epoch: token.Epoch + 1, Version: 1 << 40})); err != nil || e.Value != "c" {
			t.Errorf("a token of another epoch: %q, %v", e.Value, err)
		}
	})
}

// The first write begins the first history; a replica must not mistake its token for one of a history that is over. After a
// flush, tokens of the old history name nothing.
func TestWaitForTheFirstWrite(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		token := write(t, p, set("a", "first"))[0].Token
		if e, err := readSince(ctx, r, "a", AtLeast(token)); err != nil || e.Value != "first" {
			t.Errorf("%q after waiting for the first write: %v", e.Value, err)
		}
		if err := client(t, addr).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		holds(t, r, "a", "")
		if e, err := readSince(ctx, r, "a", AtLeast(token)); err != nil || e.Value != "" {
			t.Errorf("a token of a history that is gone: %q, %v", e.Value, err)
		}
	})
}

// readSince reads key as the reader does for a client that requires m: from memory if the replica reaches it in time,
// otherwise from Redis.
func readSince(ctx context.Context, r *Replica, key string, m Min) (store.Entry, error) {
	if r.WaitFor(ctx, m) {
		if e, found := r.Get([]byte(key)); found != store.Miss {
			return e, nil
		}
	}
	e, _, err := r.Fetch(ctx, key, m)
	return e, err
}

// After any damage to the keys in Redis, the next write repairs the log, and replicas end up with the state in Redis.
func TestHistoriesEnd(t *testing.T) {
	k := protocol.NewKeys(protocol.DefaultNamespace)
	const list = "redis.call('DEL', KEYS[1]) redis.call('LPUSH', KEYS[1], 'x') return 1"
	for _, disturb := range []struct {
		name string
		do   []any
	}{
		{"flush", []any{"FLUSHALL"}},
		{"sequence set back", []any{"SET", k.Seq, "3"}},
		{"sequence set ahead", []any{"SET", k.Seq, "1000"}},
		{"sequence lost", []any{"DEL", k.Seq}},
		{"sequence not a number", []any{"SET", k.Seq, "many"}},
		{"sequence nan", []any{"SET", k.Seq, "nan"}},
		{"sequence infinite", []any{"SET", k.Seq, "inf"}},
		{"sequence too large", []any{"SET", k.Seq, "9007199254740992"}},
		{"sequence negative", []any{"SET", k.Seq, "-5"}},
		{"sequence a fraction", []any{"SET", k.Seq, "7.5"}},
		{"log lost", []any{"DEL", k.Log}},
		{"log cut at the end", []any{"XDEL", k.Log, "10-0"}},
		{"epoch lost", []any{"DEL", k.Epoch}},
		{"sequence a list", []any{"EVAL", list, 1, k.Seq}},
		{"log a list", []any{"EVAL", list, 1, k.Log}},
		{"epoch a list", []any{"EVAL", list, 1, k.Epoch}},
		{"epoch changed", []any{"SET", k.Epoch, "12345678"}},
		{"sequence and log lost", []any{"DEL", k.Seq, k.Log}},
		{"log had a higher id", []any{"EVAL", "redis.call('XADD', KEYS[1], '5000-0', 'e', 'x') redis.call('XDEL', KEYS[1], '5000-0') return 1", 1, k.Log}},
	} {
		t.Run(disturb.name, func(t *testing.T) {
			each(t, func(t *testing.T, addr string) {
				p, r := newPublisher(t, addr), startReplica(t, addr)
				ready(t, r)
				var before []protocol.Token
				for i := range 10 {
					before = append(before, write(t, p, set(fmt.Sprint("k", i), "old"))[0].Token)
				}
				holds(t, r, "k9", "old")
				c := client(t, addr)
				if err := c.Do(t.Context(), disturb.do...).Err(); err != nil {
					t.Fatal(err)
				}
				token := write(t, p, set("k3", "new"), set("k99", "new"))[1].Token
				reached(t, r, token)
				holds(t, r, "k3", "new")
				holds(t, r, "k99", "new")
				for _, old := range before {
					if old == token {
						t.Errorf("%v was handed out twice", token)
					}
				}
				for i := range 10 {
					key := fmt.Sprint("k", i)
					want := "old"
					if i == 3 {
						want = "new"
					} else if n, err := c.Exists(t.Context(), k.Prefix+key).Result(); err != nil {
						t.Fatal(err)
					} else if n == 0 {
						want = ""
					}
					holds(t, r, key, want)
				}
				// The new history continues as the old one did.
				snapshots := r.Status()
				token = write(t, p, protocol.Write{Op: protocol.Delete, Key: "k99"})[0].Token
				reached(t, r, token)
				holds(t, r, "k99", "")
				if !snapshots.Complete {
					t.Errorf("the set is not complete: %+v", snapshots)
				}
			})
		})
	}
}

func TestFlushWithoutAWrite(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		write(t, p, set("a", "b"))
		holds(t, r, "a", "b")
		if err := client(t, addr).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		holds(t, r, "a", "") // the probe detects it
	})
}

// Values that other programs store under keys of the shard count as absent, and stop nothing.
func TestForeignValues(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, c, k := newPublisher(t, addr), client(t, addr), protocol.NewKeys(protocol.DefaultNamespace)
		for i := range 20 {
			write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 40<<10)))
		}
		write(t, p, set("a", "old"))
		stored, err := c.Get(t.Context(), k.Prefix+"a").Result()
		if err != nil {
			t.Fatal(err)
		}
		write(t, p, set("a", "new"))
		for _, err := range []error{
			c.LPush(t.Context(), k.Prefix+"list", "x").Err(),
			c.Set(t.Context(), k.Prefix+"text", "x", 0).Err(),
			c.Set(t.Context(), k.Prefix+"copy", stored, 0).Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		small := startReplica(t, addr, func(c *Config) { c.Local.MaxSize = 256 << 10 })
		large := startReplica(t, addr)
		ready(t, small)
		ready(t, large)
		holds(t, large, "a", "new")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, key := range []string{"list", "text", "copy"} {
			holds(t, large, key, "")
			if _, present, err := small.Fetch(ctx, key, Min{}); present || err != nil {
				t.Errorf("%s: %v, %v", key, present, err)
			}
		}
		token := write(t, p, set("b", "x"))[0].Token
		reached(t, small, token)
		if e, present, err := small.Fetch(ctx, "a", Min{}); !present || err != nil || e.Value != "new" {
			t.Errorf("a is %q, %v, %v", e.Value, present, err)
		}
	})
}

// A long snapshot reports its progress in the log and in the status.
func TestSnapshotReportsItsProgress(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	const keys = 12_000 // number of keys; a page has 256 KiB
	for i := range keys / 500 {
		batch := make([]protocol.Write, 500)
		for k := range batch {
			batch[k] = set(fmt.Sprint("k", i*500+k), strings.Repeat("x", 500))
		}
		write(t, p, batch...)
	}
	link := faultnet.NewProxy(t, server.Addr())
	link.Throttle(faultnet.ToClient, 2<<20) // bytes a second
	var log logtest.Buffer
	r := startReplica(t, link.Addr(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	eventually.Nil(t, func() error {
		p := r.Status().Snapshot
		if p == nil || p.Loaded == 0 {
			return fmt.Errorf("no progress: %+v", r.Status())
		}
		if p.Total != keys || p.Loaded > p.Total {
			return fmt.Errorf("%d of %d", p.Loaded, p.Total)
		}
		if left, ok := p.Left(time.Now()); !ok || left < 0 {
			return fmt.Errorf("%v left, %v", left, ok)
		}
		return nil
	})
	ready(t, r)
	if logged := log.String(); !strings.Contains(logged, `msg="snapshot in progress" loaded=`) || !strings.Contains(logged, "total=12000 left=") {
		t.Errorf("the log does not report the progress:\n%s", logged)
	}
}

// A snapshot that fits is complete even if it does not fit together with the entries that it replaces.
func TestSnapshotReplacesAFullCache(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		fill := func(name string) (last protocol.Token) {
			for i := range 30 {
				last = write(t, p, set(fmt.Sprint(name, i), strings.Repeat("x", 5000)))[0].Token
			}
			return last
		}
		fill("old")
		r := startReplica(t, addr, func(c *Config) { c.Local.MaxSize = 200 << 10 })
		ready(t, r)
		if err := client(t, addr).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		token := fill("new")
		reached(t, r, token)
		for i := range 30 {
			holds(t, r, fmt.Sprint("old", i), "")
		}
		// Forces a snapshot over the entries in memory.
		if err := client(t, addr).Del(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Epoch).Err(); err != nil {
			t.Fatal(err)
		}
		token = write(t, p, set("new0", strings.Repeat("x", 5000)))[0].Token
		reached(t, r, token)
		for i := range 30 {
			holds(t, r, fmt.Sprint("new", i), strings.Repeat("x", 5000))
		}
		if !r.Status().Complete {
			t.Errorf("not complete: %+v", r.Status())
		}
	})
}

// The channel does not deliver writes from before the subscription; that must not make the subscription count as silent.
func TestIdleReplicaKeepsItsSubscription(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p := newPublisher(t, addr)
		for i := range 10 {
			write(t, p, set(fmt.Sprint(i), "x"))
		}
		r := startReplica(t, addr, func(c *Config) { c.Probe = 5 * time.Millisecond })
		ready(t, r)
		for probes, last := 0, r.public.Load(); probes < 20; probes++ { // each probe publishes once
			eventually.Nil(t, func() error {
				if now := r.public.Load(); now == last {
					return errors.New("no probe")
				} else {
					last = now
				}
				return nil
			})
		}
		if n := gathered(t, r, "cache_resubscriptions_total"); n > 0 {
			t.Errorf("the idle replica subscribed again %v times", n)
		}
		if s := r.Status(); s.Degraded {
			t.Errorf("the idle replica is degraded: %+v", s)
		}
	})
}

func TestTwoStacksOnOneChannel(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		mine, err := publisher.New(publisher.Config{Redis: nodetest.New(t, addr), Namespace: "mine"})
		if err != nil {
			t.Fatal(err)
		}
		other, err := publisher.New(publisher.Config{Redis: nodetest.New(t, addr), Namespace: "other"})
		if err != nil {
			t.Fatal(err)
		}
		r := startReplica(t, addr, func(c *Config) {
			c.Namespace = "mine"
			c.Probe = 5 * time.Second // with 100 ms, messages on a busy machine may be too late for the probe
		})
		ready(t, r)
		write(t, mine, set("a", "mine"))
		holds(t, r, "a", "mine")
		for i := range 200 {
			write(t, other, set("a", fmt.Sprint("other", i)))
			token := write(t, mine, set("b", fmt.Sprint(i)))[0].Token
			reached(t, r, token)
		}
		holds(t, r, "a", "mine")
		if n := gathered(t, r, "cache_catchups_total", "gap"); n > 2 { // one for its own first write, one for the other's
			t.Errorf("messages of another stack made the replica catch up %v times", n)
		}
		if n := gathered(t, r, "cache_resubscriptions_total"); n > 0 {
			t.Errorf("messages of another stack made the replica subscribe again %v times", n)
		}
	})
}

func TestScriptIsLoadedAgain(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		c := client(t, addr)
		for i := range 5 {
			if err := c.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if got := write(t, p, set("a", fmt.Sprint(i)))[0].Token.Version; got != uint64(i+1) {
				t.Fatalf("version %d, want %d", got, i+1)
			}
			holds(t, r, "a", fmt.Sprint(i))
		}
	})
}

// Every write of a commit has its own version, in the message and in Redis.
func TestVersionsInACommit(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		write(t, p, set("first", "x"))
		batch := make([]protocol.Write, 600) // over two changes of the second-last byte
		for i := range batch {
			batch[i] = set(fmt.Sprint("k", i), "x")
		}
		results := write(t, p, batch...)
		reached(t, r, results[len(results)-1].Token)
		late := startReplica(t, addr)
		ready(t, late)
		for i, w := range batch {
			for name, from := range map[string]*Replica{"the message": r, "Redis": late} {
				if e, found := from.Get([]byte(w.Key)); found != store.Hit || entryToken(e) != results[i].Token || e.Version != uint64(i+2) {
					t.Fatalf("%s is %v %+v from %s, written as %+v", w.Key, found, e, name, results[i])
				}
			}
		}
	})
}

func TestVersionsBeyondFourteenDigits(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r := newPublisher(t, addr), startReplica(t, addr)
		ready(t, r)
		const far uint64 = 123456789012345
		if err := client(t, addr).Set(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Seq, far, 0).Err(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			token := write(t, p, set("a", fmt.Sprint(i)))[0].Token
			if token.Version != far+uint64(i)+1 {
				t.Fatalf("version %d", token.Version)
			}
			reached(t, r, token)
			holds(t, r, "a", fmt.Sprint(i))
		}
	})
}
