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

// With any entries in the log, a log step ends, a replica becomes ready without a write, and the next write repairs the
// log.
func TestJunkInTheLog(t *testing.T) {
	const last = "18446744073709551615" // largest value of either part of an id
	var many []string
	for i := range 20 { // more than a page of step.lua
		many = append(many, fmt.Sprint("5000-", i))
	}
	for name, ids := range map[string][]string{
		"many of one millisecond":        many,
		"two of one millisecond":         {"5000-0", "5000-1"},
		"behind the last entry":          {"1-1", "1-2"},
		"the last id of a millisecond":   {"5000-" + last},
		"the last id of the watermark's": {"1-" + last},
		"the last id":                    {last + "-" + last},
	} {
		for _, packed := range []string{"x", "01234567", "0123456701234567\x01\x00\x01k"} {
			t.Run(fmt.Sprintf("%s/%q", name, packed), func(t *testing.T) {
				each(t, func(t *testing.T, addr string) {
					k := protocol.NewKeys(protocol.DefaultNamespace)
					p, r, c := newPublisher(t, addr), startReplica(t, addr), client(t, addr)
					ready(t, r)
					write(t, p, set("a", "1"))
					holds(t, r, "a", "1")
					pipe := c.TxPipeline()
					for _, id := range ids {
						pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: k.Log, ID: id, Values: []string{"e", packed}})
					}
					if _, err := pipe.Exec(t.Context()); err != nil {
						t.Fatal(err)
					}
					late := startReplica(t, addr)
					ready(t, late)
					holds(t, late, "a", "1")
					eventually.True(t, "sync", func() bool { return r.Status().Synced && late.Status().Synced })
					token := write(t, p, set("a", "2"))[0].Token
					for _, r := range []*Replica{r, late} {
						reached(t, r, token)
						holds(t, r, "a", "2")
					}
				})
			})
		}
	}
}

// A log step over entries that write.lua did not make ends at the first one.
func TestLogStepEndsAtJunk(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		c, k := client(t, addr), protocol.NewKeys(protocol.DefaultNamespace)
		pipe := c.Pipeline()
		for i := range 500 {
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: k.Log, ID: fmt.Sprint(1000+i, "-0"), Values: []string{"e", "junk"}})
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := newRedisSource(nodetest.New(t, addr), k).fetchStep(t.Context(), protocol.Query{Limit: stepBytes})
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Entries) != 1 || st.Entries[0].Writes != 0 || st.Head.Version != 1499 {
			t.Errorf("a log step of %d entries %+v up to %+v", len(st.Entries), st.Entries[:1], st.Head)
		}
	})
}

// A token of a history that has just begun is not mistaken for one of a history that is over: the read gets the written
// value, or no answer.
func TestTokenOfANewerHistory(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p, r := newPublisher(t, server.Addr()), startReplica(t, link.Addr())
	ready(t, r)
	for i := range 20 { // 2 MB, whose snapshot takes seconds below
		batch := make([]protocol.Write, 200)
		for j := range batch {
			batch[j] = set(fmt.Sprint("k", i*200+j), strings.Repeat("x", 500))
		}
		write(t, p, batch...)
	}
	reached(t, r, write(t, p, set("hot", "old"))[0].Token)
	all := link.Only(func(faultnet.Conn) bool { return true })

	all.BlackHole(faultnet.ToClient, true)
	if err := server.Client(t).Set(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Seq, 3, 0).Err(); err != nil {
		t.Fatal(err)
	}
	token := write(t, p, set("hot", "new"))[0].Token
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if e, err := readSince(ctx, r, "hot", AtLeast(token)); err == nil {
		t.Errorf("%q while the replica is cut off from the new history", e.Value)
	}

	all.BlackHole(faultnet.ToClient, false)
	link.Throttle(faultnet.ToClient, 1<<20)
	all.Cut()
	reads, loading := 0, 0
	for eventually.True(t, "a snapshot", func() bool { return r.Status().Snapshot != nil }); r.Status().Applied.Epoch != token.Epoch; reads++ {
		value := fmt.Sprint("new", reads)
		token := write(t, p, set("hot", value))[0].Token
		ctx, cancel := context.WithTimeout(t.Context(), 450*time.Millisecond)
		e, err := readSince(ctx, r, "hot", AtLeast(token))
		cancel()
		if err == nil && e.Value != value {
			t.Fatalf("read %d: %q with the token of %q", reads, e.Value, value)
		}
		if err == nil && r.Status().Snapshot != nil {
			loading++
		}
	}
	if loading == 0 {
		t.Errorf("none of %d reads was answered during the snapshot", reads)
	}
}

// A token of a history that is over costs one request to Redis. Later reads with it are answered from memory, also while
// Redis is down.
func TestTokenOfAHistoryThatIsOver(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p, r := newPublisher(t, server.Addr()), startReplica(t, server.Addr())
	ready(t, r)
	old := write(t, p, set("a", "old"))[0].Token
	if err := server.Client(t).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	reached(t, r, write(t, p, set("a", "new"))[0].Token)
	if r.Reached(AtLeast(old)) {
		t.Fatal("reached before a request has shown that the history of the token is over")
	}
	if e, err := readSince(t.Context(), r, "a", AtLeast(old)); err != nil || e.Value != "new" {
		t.Fatalf("%q, %v", e.Value, err)
	}
	server.Pause()
	defer server.Resume()
	if e, found := r.Get([]byte("a")); !r.Reached(AtLeast(old)) || found != store.Hit || e.Value != "new" {
		t.Errorf("while Redis is down: reached %v, %q %v", r.Reached(AtLeast(old)), e.Value, found)
	}
	for i := range 3 * uint64(maxOver) { // clients choose what they send
		r.over.add(old.Epoch+i, r.public.Load().watermark.Epoch)
	}
	if n := len(r.over.known.Load().over); n > maxOver {
		t.Errorf("%d epochs are recorded", n)
	}
}

// Versions that are assigned again in the same epoch are detected with the first message, before the next probe.
func TestRollbackIsDetectedByMessages(t *testing.T) {
	redistest.Require(t)
	addr := redistest.Start(t).Addr()
	p, c, k := newPublisher(t, addr), client(t, addr), protocol.NewKeys(protocol.DefaultNamespace)
	r := startReplica(t, addr, func(c *Config) { c.Probe = time.Minute })
	ready(t, r)
	var tokens []protocol.Token
	writes := func() {
		for range 10 {
			tokens = append(tokens, write(t, p, set("a", fmt.Sprint(len(tokens))))[0].Token)
		}
	}
	writes()
	log, seq := c.Dump(t.Context(), k.Log), c.Dump(t.Context(), k.Seq)
	writes()
	reached(t, r, tokens[19])
	// The state of a Redis replica that lacks the last ten writes.
	err := errors.Join(c.RestoreReplace(t.Context(), k.Log, 0, log.Val()).Err(), c.RestoreReplace(t.Context(), k.Seq, 0, seq.Val()).Err())
	if err != nil {
		t.Fatal(err)
	}
	token := write(t, p, set("a", "again"))[0].Token
	if token.Version != tokens[10].Version || token.Epoch != tokens[10].Epoch {
		t.Fatalf("the write has the token %v, want that of %v again", token, tokens[10])
	}
	holds(t, r, "a", "again")
}

// Many stacks and other programs on one channel cost one log step for each stack, not for each message, and do not make the
// subscription count as silent.
func TestCrowdedChannel(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		const stacks, rounds = 20, 40
		p, c := newPublisher(t, addr), client(t, addr)
		var others []*publisher.Publisher
		for i := range stacks {
			q, err := publisher.New(publisher.Config{Redis: nodetest.New(t, addr), Namespace: fmt.Sprint("other", i)})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, q)
		}
		r := startReplica(t, addr)
		ready(t, r)
		reached(t, r, write(t, p, set("a", "x"))[0].Token)
		for began, round := time.Now(), 0; round < rounds || time.Since(began) < 2*silentAfter; round++ {
			for i, q := range others {
				write(t, q, set("a", "not ours"))
				if err := c.Publish(t.Context(), protocol.DefaultChannel, fmt.Sprintf(`{"%d":"long enough for a head of a message"}`, i)).Err(); err != nil {
					t.Fatal(err)
				}
			}
			reached(t, r, write(t, p, set("a", "x"))[0].Token)
		}
		if n := gathered(t, r, "cache_catchups_total", "gap"); n > stacks+5 {
			t.Errorf("%d other stacks made the replica catch up %v times", stacks, n)
		}
		if n := gathered(t, r, "cache_resubscriptions_total"); n > 0 {
			t.Errorf("the replica subscribed again %v times", n)
		}
	})
}

// The number of ignored epochs is bounded, and a new one evicts one only.
func TestIgnoredEpochsAreBounded(t *testing.T) {
	a := newApplier(nil, nil, newInbox(), newMissQueue(), quiet(), newMetrics())
	for epoch := range uint64(3 * maxIgnored) {
		before := len(a.ignored)
		a.ignore(epoch)
		if now := len(a.ignored); now > maxIgnored || now < before {
			t.Fatalf("%d ignored epochs after %d", now, before)
		}
	}
}

// A replica that is far behind catches up over a link that cannot carry a whole log step in time.
func TestCatchUpOverASlowLink(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p, r := newPublisher(t, server.Addr()), startReplica(t, link.Addr())
	ready(t, r)
	reached(t, r, write(t, p, set("a", "x"))[0].Token)
	link.Refuse(true)
	link.Only(func(faultnet.Conn) bool { return true }).Cut()
	var last protocol.Token
	for i := range 12 {
		last = write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 200<<10)))[0].Token
	}
	link.Throttle(faultnet.ToClient, 1500<<10)
	link.Refuse(false)
	reached(t, r, last)
}

// Redis with values and without a history does not show deletes. The replica is not synced, and takes snapshots until a write
// begins a history.
func TestNoHistory(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r, c, k := newPublisher(t, addr), startReplica(t, addr), client(t, addr), protocol.NewKeys(protocol.DefaultNamespace)
		ready(t, r)
		write(t, p, set("a", "1"), set("b", "1"))
		holds(t, r, "b", "1")
		if err := c.Del(t.Context(), k.Seq, k.Epoch, k.Log).Err(); err != nil {
			t.Fatal(err)
		}
		eventually.Nil(t, func() error {
			if s := r.Status(); s.Snapshot != nil || s.Synced || s.Complete || !s.Degraded || !s.NoHistory || s.Lag == 0 {
				return fmt.Errorf("without a history: %+v", s)
			}
			return nil
		})
		if err := c.Del(t.Context(), k.Prefix+"a").Err(); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, "delete", func() bool {
			_, found := r.Get([]byte("a"))
			return found == store.Miss && r.Status().Snapshot == nil
		})
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		holds(t, r, "b", "")
		write(t, p, set("a", "2"))
		holds(t, r, "a", "2")
		eventually.Nil(t, func() error {
			if s := r.Status(); !s.Synced || !s.Complete || s.Degraded || s.NoHistory {
				return fmt.Errorf("with a history again: %+v", s)
			}
			return nil
		})
	})
}

// Repeated snapshots of an empty Redis do not change the status.
func TestEmptyRedisStaysInSync(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		c, r := client(t, addr), startReplica(t, addr)
		ready(t, r)
		for i := range 20 { // keys of other programs, so that a snapshot takes long
			var pairs []any
			for j := range 1000 { // a larger request may take longer than the client's timeout
				pairs = append(pairs, fmt.Sprint("other", i, "-", j), "x")
			}
			if err := c.MSet(t.Context(), pairs...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		eventually.True(t, "second snapshot", func() bool {
			if s := r.Status(); s.Degraded || !s.Complete || !s.Synced || s.Snapshot != nil {
				t.Fatalf("with an empty Redis: %+v", s)
			}
			return gathered(t, r, "cache_snapshots_total", snapshotNoHistory.String()) >= 1
		})
		write(t, newPublisher(t, addr), set("a", "1"))
		eventually.True(t, "the history that the first write began", func() bool {
			s := r.Status()
			if s.NoHistory {
				t.Fatalf("after the first write, the epoch counts as deleted: %+v", s)
			}
			return s.Synced && s.Applied.Epoch != 0
		})
		holds(t, r, "a", "1")
	})
}

// Invalid messages are counted, and do not flood the log.
func TestInvalidMessagesAreLoggedOnce(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		var log logtest.Buffer
		c, r := client(t, addr), startReplica(t, addr, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		ready(t, r)
		const messages = 200
		for range messages {
			if err := c.Publish(t.Context(), protocol.DefaultChannel, "no message of a writer, and longer than a head").Err(); err != nil {
				t.Fatal(err)
			}
		}
		eventually.Nil(t, func() error {
			if n := gathered(t, r, "cache_messages_total", "invalid"); n != messages {
				return fmt.Errorf("%v invalid messages, want %d", n, messages)
			}
			return nil
		})
		if n := strings.Count(log.String(), "\n") - strings.Count(log.String(), "level=INFO"); n < 1 || n > 3 {
			t.Errorf("%d lines for %d messages:\n%s", n, messages, log.String())
		}
	})
}

// lateSource calls after once, after the next log step from a watermark.
type lateSource struct {
	source
	after func()
}

func (l *lateSource) fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	st, err := l.source.fetchStep(ctx, q)
	if after := l.after; after != nil && q.Watermark != endOfLog {
		l.after = nil
		after()
	}
	return st, err
}
