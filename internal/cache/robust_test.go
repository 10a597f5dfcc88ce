package cache

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/eventually"
	"heavy-read-api/internal/faultnet"
	"heavy-read-api/internal/logtest"
	"heavy-read-api/internal/redistest"
)

// Whatever stands in the log, a step ends, a replica becomes ready without a write, and the next write
// heals the log.
func TestJunkInTheLog(t *testing.T) {
	const last = "18446744073709551615" // of both parts of an id
	var many []string
	for i := range 20 { // more than a page
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
					k := newKeys(defaultNamespace)
					p, r, c := publisher(t, addr), replica(t, addr), client(t, addr)
					ready(t, r)
					write(t, p, set("a", "1"))
					holds(t, r, "a", "1")
					pipe := c.TxPipeline()
					for _, id := range ids {
						pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: k.log, ID: id, Values: []string{"e", packed}})
					}
					if _, err := pipe.Exec(t.Context()); err != nil {
						t.Fatal(err)
					}
					late := replica(t, addr)
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

// A step over entries that the write script did not make ends at the first one, however many there are.
func TestStepEndsAtJunk(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		c, k := client(t, addr), newKeys(defaultNamespace)
		pipe := c.Pipeline()
		for i := range 500 {
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: k.log, ID: fmt.Sprint(1000+i, "-0"), Values: []string{"e", "junk"}})
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		st, err := newRedisSource(c, k).step(t.Context(), Head{}, Head{}, nil, stepBytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(st.entries) != 1 || st.entries[0].writes != 0 || st.head.Version != 1499 {
			t.Errorf("a step of %d entries %+v up to %+v", len(st.entries), st.entries[:1], st.head)
		}
	})
}

// A token of a history that the replica does not know yet is not taken for one of a history that is
// over: the answer is the write's, or none.
func TestTokenOfANewerHistory(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p, r := publisher(t, server.Addr()), replica(t, link.Addr())
	ready(t, r)
	for i := range 20 { // 2 MB, and seconds to load below
		batch := make([]Write, 200)
		for j := range batch {
			batch[j] = set(fmt.Sprint("k", i*200+j), strings.Repeat("x", 500))
		}
		write(t, p, batch...)
	}
	reached(t, r, write(t, p, set("hot", "old"))[0].Token)
	all := link.Only(func(faultnet.Conn) bool { return true })

	all.BlackHole(faultnet.ToClient, true)
	if err := server.Client(t).Set(t.Context(), newKeys(defaultNamespace).seq, 3, 0).Err(); err != nil {
		t.Fatal(err)
	}
	token := write(t, p, set("hot", "new"))[0].Token
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if e, err := readSince(ctx, r, "hot", token); err == nil {
		t.Errorf("%q while the replica cannot know of the new history", e.Value)
	}

	all.BlackHole(faultnet.ToClient, false)
	link.Throttle(faultnet.ToClient, 1<<20)
	all.Cut()
	reads, loading := 0, 0
	for eventually.True(t, "a snapshot", func() bool { return r.Status().Snapshot != nil }); r.Status().Applied.Epoch != token.Epoch; reads++ {
		value := fmt.Sprint("new", reads)
		token := write(t, p, set("hot", value))[0].Token
		ctx, cancel := context.WithTimeout(t.Context(), 450*time.Millisecond)
		e, err := readSince(ctx, r, "hot", token)
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

// Many stacks and other programs on the channel cost a step for each stack, not for each message, and
// do not make the subscription look dead.
func TestCrowdedChannel(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		const stacks, rounds = 20, 40
		p, c := publisher(t, addr), client(t, addr)
		var others []*Publisher
		for i := range stacks {
			q, err := NewPublisher(PublisherConfig{Client: c, Namespace: fmt.Sprint("other", i)})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, q)
		}
		r := replica(t, addr)
		ready(t, r)
		reached(t, r, write(t, p, set("a", "x"))[0].Token)
		for began, round := time.Now(), 0; round < rounds || time.Since(began) < 2*silentAfter; round++ {
			for i, q := range others {
				write(t, q, set("a", "not ours"))
				if err := c.Publish(t.Context(), defaultChannel, fmt.Sprintf(`{"%d":"long enough for a head of a message"}`, i)).Err(); err != nil {
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

// More epochs than are remembered cost one step for each batch of messages, and the others stay known.
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

// A replica that fell far behind catches up over a link that cannot carry a whole step in time.
func TestCatchUpOverASlowLink(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p, r := publisher(t, server.Addr()), replica(t, link.Addr())
	ready(t, r)
	reached(t, r, write(t, p, set("a", "x"))[0].Token)
	link.Refuse(true)
	link.Only(func(faultnet.Conn) bool { return true }).Cut()
	var last Token
	for i := range 12 {
		last = write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 200<<10)))[0].Token
	}
	link.Throttle(faultnet.ToClient, 1500<<10)
	link.Refuse(false)
	reached(t, r, last)
}

// Redis with values and without a history tells nothing about deletes. The replica does not claim to
// be in sync, and takes snapshots until a write begins a history.
func TestNoHistory(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		p, r, c, k := publisher(t, addr), replica(t, addr), client(t, addr), newKeys(defaultNamespace)
		ready(t, r)
		write(t, p, set("a", "1"), set("b", "1"))
		holds(t, r, "b", "1")
		if err := c.Del(t.Context(), k.seq, k.epoch, k.log).Err(); err != nil {
			t.Fatal(err)
		}
		eventually.Nil(t, func() error {
			if s := r.Status(); s.Snapshot != nil || s.Synced || s.Complete || !s.Degraded || !s.NoHistory || s.Lag == 0 {
				return fmt.Errorf("without a history: %+v", s)
			}
			return nil
		})
		if err := c.Del(t.Context(), k.prefix+"a").Err(); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, "delete", func() bool {
			_, found := r.Get([]byte("a"))
			return found == Miss && r.Status().Snapshot == nil
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

// Messages that do not decode are counted, and do not fill the log.
func TestInvalidMessagesAreLoggedOnce(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		var log logtest.Buffer
		c, r := client(t, addr), replica(t, addr, func(c *ReplicaConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		ready(t, r)
		const messages = 200
		for range messages {
			if err := c.Publish(t.Context(), defaultChannel, "no message of a writer, and longer than a head").Err(); err != nil {
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

func TestLogLimit(t *testing.T) {
	var lines []string
	log := func(msg string, args ...any) { lines = append(lines, fmt.Sprint(append([]any{msg}, args...)...)) }
	var l logLimit
	now := time.Unix(1e9, 0)
	for range 3 {
		l.log(log, now, "a")
	}
	l.log(log, now.Add(logInterval), "b")
	l.log(log, now.Add(2*logInterval), "c")
	if got, want := strings.Join(lines, " "), "a bomitted_lines2 c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// lateSource calls after once, when the next step from a watermark has been taken.
type lateSource struct {
	source
	after func()
}

func (l *lateSource) step(ctx context.Context, w, ahead Head, missed []string, limit int64) (step, error) {
	st, err := l.source.step(ctx, w, ahead, missed, limit)
	if after := l.after; after != nil && w != endOfLog {
		l.after = nil
		after()
	}
	return st, err
}
