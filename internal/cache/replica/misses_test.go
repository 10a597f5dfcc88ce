package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// Redis reads no value that does not fit into the reply; 64 values of 1 MiB would take it 70 ms.
func TestLogStepReadsOnlyWhatItReturns(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	var keys []string
	for i := range maxStepKeys {
		keys = append(keys, fmt.Sprint("k", i))
		write(t, p, set(keys[i], strings.Repeat("x", 1<<20)))
	}
	c := server.Client(t)
	if err := c.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	st, err := newRedisSource(nodetest.New(t, server.Addr()), protocol.NewKeys(protocol.DefaultNamespace)).fetchStep(t.Context(), protocol.Query{Watermark: endOfLog, Missed: keys, Limit: stepBytes})
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for _, l := range st.Missed {
		if !l.Skipped {
			answered++
		}
	}
	if answered == 0 || answered > 3 {
		t.Errorf("%d of %d values of 1 MiB in a log step of %d bytes", answered, len(keys), stepBytes)
	}
	stats, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("cmdstat_get:calls=%d,", answered+1); !strings.Contains(stats, want) { // one for the epoch
		t.Errorf("want %s in\n%s", want, stats)
	}
}

// A read that a log step skipped is not overtaken by later reads.
func TestSkippedMissesGoFirst(t *testing.T) {
	q := missOwner{newMissQueue()}
	ask := func(keys ...string) (asked []*miss) {
		for _, key := range keys {
			m := &miss{key: key, done: make(chan missed, 1)}
			if err := q.enqueue(m); err != nil {
				t.Fatal(err)
			}
			asked = append(asked, m)
		}
		return asked
	}
	answer := func(keys []string, skipped ...string) {
		st := protocol.LogStep{}
		for _, key := range keys {
			st.Missed = append(st.Missed, protocol.Value{Key: key, Skipped: slices.Contains(skipped, key)})
		}
		q.answer(&st)
	}
	first := ask("a", "b", "c", "b")
	keys := q.keys(maxStepKeys)
	ask("d", "e")
	answer(keys, "b", "c")
	if len(first[0].done) != 1 || len(first[1].done) != 0 {
		t.Fatal("want a answered and b waiting")
	}
	keys = q.keys(maxStepKeys)
	if got, want := strings.Join(keys, ""), "bcde"; got != want {
		t.Errorf("the next log step has the keys %s, want %s", got, want)
	}
	if answer(keys); len(first[1].done) != 1 || len(first[3].done) != 1 {
		t.Error("not every read of b was answered")
	}
	if q.pending != 0 || !q.empty() {
		t.Errorf("%d reads are still waiting", q.pending)
	}
}

// No value is read for a client that gave up.
func TestAbandonedMissesAreNotAsked(t *testing.T) {
	q := missOwner{newMissQueue()}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range maxMisses + 1 {
		if a := q.ask(gone, "gone"); a.err != context.Canceled {
			t.Fatal(a.err)
		}
		if got := q.keys(maxStepKeys); len(got) > 0 {
			t.Fatalf("a log step has the keys %v", got)
		}
	}
	if q.pending != 0 {
		t.Errorf("%d reads are waiting", q.pending)
	}
}

// Values that hardly fit into memory are missed all the time. Every client still gets answers.
func TestLargeMissesAreServedEvenly(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	const clients, answers = 64, 10
	for i := range clients {
		write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 1<<20)))
	}
	r := startReplica(t, server.Addr(), func(c *Config) { c.Local.MaxSize = 8 << 20 })
	ready(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got [clients]int
	var reads sync.WaitGroup
	for i := range clients {
		reads.Go(func() {
			for got[i] < answers && ctx.Err() == nil {
				one, stop := context.WithTimeout(ctx, 450*time.Millisecond) // the budget of a read
				if _, present, err := r.Fetch(one, fmt.Sprint("k", i), Min{}); err == nil && present {
					got[i]++
				}
				stop()
			}
		})
	}
	reads.Wait()
	if slices.Min(got[:]) < answers {
		t.Errorf("answers of %d clients: %v, want %d for each", clients, got, answers)
	}
}

// A key that Redis refuses to read does not count as slow: the next read asks Redis again.
func TestRefusedKeyIsNotSlow(t *testing.T) {
	redistest.Require(t)
	const rules = "&* -@all +ping +info +dbsize +evalsha_ro +get +mget +scan +xrange +xrevrange +subscribe"
	server := redistest.Start(t, redistest.User("reader", "secret", "%R~{posts:0}:log %R~{posts:0}:epoch %R~{posts:0}:p:[a-y] "+rules))
	p := newPublisher(t, server.Addr())
	write(t, p, set("a", "1"))
	r := startReplica(t, server.Addr(), func(c *Config) {
		c.Redis = nodetest.New(t, server.Addr(), func(n *redisnode.Config) { n.Username, n.Password = "reader", "secret" })
	})
	ready(t, r)
	fetch := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := r.Fetch(ctx, "z", Min{})
		return err
	}
	// First the log step with the key fails, then the separate fetch of the key.
	eventually.True(t, "separate fetch of the key", func() bool {
		err := fetch()
		return err != nil && !errors.Is(err, errPaused) && r.Status().Synced
	})
	if err := server.Client(t).Do(t.Context(), "ACL", "SETUSER", "reader", "~*").Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually.Nil(t, fetch)
	if took := time.Since(began); took > slowPause/2 {
		t.Errorf("the key was refused for %v after it could be read", took)
	}
}
