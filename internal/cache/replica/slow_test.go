package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// A commit whose values have grown is read in parts, and each part continues where the last one ended.
func TestLogStepsWithinACommit(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		const keys = 100
		p := newPublisher(t, addr)
		commit := make([]protocol.Write, keys)
		for i := range commit {
			commit[i] = set(fmt.Sprint("k", i), "small")
		}
		write(t, p, commit...)
		for i := range keys {
			write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 32<<10)))
		}
		src := newRedisSource(nodetest.New(t, addr), protocol.NewKeys(protocol.DefaultNamespace))
		q := protocol.Query{Limit: stepLeast}
		got := make(map[string]int)
		for q.Watermark.Version < keys {
			st, err := src.fetchStep(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if st.Size > stepLeast+33<<10 {
				t.Fatalf("a log step of %d bytes", st.Size)
			}
			q.Watermark.Epoch = st.Head.Epoch
			if verdict := judge(&st, q.Watermark, protocol.Head{}); verdict != stepContinues {
				t.Fatalf("%s at %+v", verdict, q)
			}
			for _, l := range st.Values {
				got[l.Key]++
			}
			q.Watermark, _ = reach(&st, q.Watermark)
			if q.Part == st.Part {
				t.Fatalf("no progress at %+v", q)
			}
			q.Part = st.Part
		}
		for i := range keys {
			if n := got[fmt.Sprint("k", i)]; n != 1 {
				t.Errorf("k%d was read %d times", i, n)
			}
		}
		// The part of another entry, as after a rollback, is ignored.
		st, err := src.fetchStep(t.Context(), protocol.Query{Limit: 1, Part: protocol.Part{WriteID: 1, Writes: keys / 2}})
		if err != nil || len(st.Values) != 1 || st.Values[0].Key != "k0" {
			t.Errorf("with a part of another entry: %+v, %v", st.Values, err)
		}
	})
}

// A replica catches up over commits whose values have grown, on a slow link.
func TestCatchUpOverGrownValues(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p, r := newPublisher(t, server.Addr()), startReplica(t, link.Addr())
	ready(t, r)
	reached(t, r, write(t, p, set("a", "x"))[0].Token)
	link.Refuse(true)
	link.Only(func(faultnet.Conn) bool { return true }).Cut()
	commit := make([]protocol.Write, 300)
	for i := range commit {
		commit[i] = set(fmt.Sprint("k", i), "small")
	}
	write(t, p, commit...)
	var last protocol.Token
	for i := range commit {
		last = write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", 16<<10)))[0].Token
	}
	link.Throttle(faultnet.ToClient, 1500<<10) // 4.8 MB
	link.Refuse(false)
	reached(t, r, last)
}

// A snapshot finds a page size that the link can carry, also after the values have grown.
func TestSnapshotAfterGrowth(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	p := newPublisher(t, server.Addr())
	const keys = 100
	values := func(size int) (last protocol.Token) {
		for i := range keys {
			last = write(t, p, set(fmt.Sprint("k", i), strings.Repeat("x", size)))[0].Token
		}
		return last
	}
	values(200)
	link := faultnet.NewProxy(t, server.Addr())
	r := startReplica(t, link.Addr())
	ready(t, r)
	link.Refuse(true)
	link.Only(func(faultnet.Conn) bool { return true }).Cut()
	values(100 << 10) // 10 MB
	if err := server.Client(t).Del(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Log).Err(); err != nil {
		t.Fatal(err)
	}
	last := write(t, p, set("a", "x"))[0].Token
	link.Throttle(faultnet.ToClient, 2<<20)
	link.Refuse(false)
	reached(t, r, last)
}

// A value that the link cannot carry in time fails its own reads only.
func TestOneValueTooLargeForTheLink(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	link := faultnet.NewProxy(t, server.Addr())
	p := newPublisher(t, server.Addr())
	write(t, p, set("huge", strings.Repeat("h", 6<<20)))
	r := startReplica(t, link.Addr(), func(c *Config) { c.Local.MaxSize = 4 << 20 })
	ready(t, r)
	link.Throttle(faultnet.ToClient, 4<<20)
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			one, cancel := context.WithTimeout(ctx, 450*time.Millisecond)
			if _, _, err := r.Fetch(one, "huge", Min{}); errors.Is(err, errSlowValue) {
				select {
				case <-time.After(20 * time.Millisecond): // the refusal comes at once, and a client retries
				case <-ctx.Done():
				}
			}
			cancel()
		}
	})
	eventually.True(t, "refusal of the large value", func() bool {
		one, cancel := context.WithTimeout(ctx, 450*time.Millisecond)
		defer cancel()
		_, _, err := r.Fetch(one, "huge", Min{})
		return errors.Is(err, errSlowValue)
	})
	const writes = 100
	failed := 0
	for i := range writes {
		token := write(t, p, set("a", fmt.Sprint(i)))[0].Token
		one, cancel := context.WithTimeout(ctx, 450*time.Millisecond)
		if e, err := readSince(one, r, "a", AtLeast(token)); err != nil || e.Value != fmt.Sprint(i) {
			failed++
		}
		cancel()
	}
	stop()
	asking.Wait()
	if failed > writes/5 { // the value is fetched once in 10 s
		t.Errorf("%d of %d reads of a small value failed", failed, writes)
	}
	if s := r.Status(); !s.Synced {
		t.Errorf("not in sync: %+v", s)
	}
}

// A demoted primary drops its values and keeps its run id: a snapshot of it fails.
func TestSnapshotOfADemotedServer(t *testing.T) {
	redistest.Require(t)
	server, next := redistest.Start(t), redistest.Start(t)
	write(t, newPublisher(t, server.Addr()), set("a", "x"))
	p, err := newRedisSource(nodetest.New(t, server.Addr()), protocol.NewKeys(protocol.DefaultNamespace)).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	server.ReplicaOf(next)
	server.WaitReplicaOnline()
	for more := true; more; {
		got, err := p.next(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		more = got.more
	}
	if head, err := p.finish(t.Context()); !errors.Is(err, redisnode.ErrNotPrimary) {
		t.Errorf("the snapshot ended at %+v, %v", head, err)
	}
}
