package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// One request answers all reads that waited when it began, and none that arrived later.
func TestNewestSharesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Uint64
		n := &newest{ask: func(context.Context) (protocol.Head, error) {
			h := protocol.Head{Version: asked.Add(1)}
			time.Sleep(100 * time.Millisecond)
			return h, nil
		}}
		var reads sync.WaitGroup
		read := func(want uint64) {
			reads.Go(func() {
				if h, err := n.head(t.Context()); err != nil || h.Version != want {
					t.Errorf("answered by request %d (%v), want %d", h.Version, err, want)
				}
			})
		}
		for batch := range uint64(3) { // the first read starts a request; the others arrive while one runs
			for range 1 + 9*min(batch, 1) {
				read(batch + 1)
			}
			synctest.Wait()
			time.Sleep(50 * time.Millisecond)
			if batch == 1 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		reads.Wait()
		if got := asked.Load(); got != 3 {
			t.Errorf("%d requests, want 3", got)
		}
		read(4) // none runs any more
		reads.Wait()
	})
}

// A failure is answered to the reads that arrive shortly after it, so that an unreachable Redis is not asked all the time.
func TestNewestFailsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, fail := 0, errors.New("down")
		n := &newest{ask: func(context.Context) (protocol.Head, error) {
			asked++
			return protocol.Head{Version: 7}, fail
		}}
		for range 10 {
			if _, err := n.head(t.Context()); !errors.Is(err, fail) || asked != 1 {
				t.Fatalf("%v after %d requests", err, asked)
			}
		}
		time.Sleep(retryPause)
		fail = nil
		if h, err := n.head(t.Context()); err != nil || h.Version != 7 {
			t.Errorf("%v, %v after the pause", h, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n.ask = func(ctx context.Context) (protocol.Head, error) { <-ctx.Done(); return protocol.Head{}, ctx.Err() }
		if _, err := n.head(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that of the read's context", err)
		}
		time.Sleep(missTimeout) // the bound of a request that nobody waits for
		synctest.Wait()
	})
}

// After a rollback that the replica has not noticed, a read of the latest write and a read of a write with its write id
// include what Redis has now, whether the history that goes on is shorter, as long or longer than what memory holds. The
// write's version alone does not show the difference.
func TestLatestAfterARollback(t *testing.T) {
	redistest.Require(t)
	for again := range 4 {
		for _, named := range []bool{false, true}[:1+min(again, 1)] {
			t.Run(fmt.Sprintf("%d of 2 versions again, named=%v", again, named), func(t *testing.T) {
				server := redistest.Start(t)
				link := faultnet.NewProxy(t, server.Addr())
				p, r := newPublisher(t, server.Addr()), startReplica(t, link.Addr(), func(c *Config) { c.Probe = time.Hour })
				ready(t, r)
				write(t, p, set("a", "old"))
				eventually.True(t, "sync", func() bool { s := r.Status(); return s.Synced && s.Snapshot == nil && s.Applied.Version == 1 })
				kept := r.Status().Applied
				c, ctx := server.Client(t), t.Context()
				keys := protocol.NewKeys(protocol.DefaultNamespace)
				backup := map[string]string{}
				for _, key := range []string{keys.Log, keys.Seq, keys.Prefix + "a"} {
					backup[key] = c.Dump(ctx, key).Val()
				}
				write(t, p, set("a", "lost"))
				reached(t, r, write(t, p, set("b", "lost"))[0].Token)
				eventually.True(t, "sync", func() bool { s := r.Status(); return s.Synced && s.Snapshot == nil && s.Applied.Version == 3 })
				applied := r.Status().Applied
				// Not at once: it is not known while a log step is applied.
				eventually.True(t, "the head of memory", func() bool { return r.Reached(Min{Heads: [2]protocol.Head{applied}}) })

				link.Only(faultnet.Contains("subscribe")).BlackHole(faultnet.ToClient, true)
				for key, value := range backup {
					if err := c.RestoreReplace(ctx, key, 0, value).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Del(ctx, keys.Prefix+"b").Err(); err != nil {
					t.Fatal(err)
				}
				p = newPublisher(t, server.Addr())
				last, want := publisher.Result{WriteID: kept.WriteID}, "old"
				for i := range again {
					want = fmt.Sprint("new", i)
					last = write(t, p, set("a", want))[0]
				}
				m := Min{Latest: true}
				if named {
					m = Min{Heads: [2]protocol.Head{{Epoch: last.Token.Epoch, Version: last.Token.Version, WriteID: last.WriteID}}}
				}
				if e, _ := r.Get([]byte("a")); e.Value != "lost" { // a busy machine may have delayed an earlier log step until now
					t.Logf("memory has %q: the rollback has been noticed", e.Value)
				}
				e, err := readSince(ctx, r, "a", m)
				if err != nil || e.Value != want {
					t.Errorf("%q (%v), want %q", e.Value, err, want)
				}
				found, at, err := r.GetMany(ctx, []string{"a", "b"}, m)
				if err != nil || at.WriteID != last.WriteID || found[0].Entry.Value != e.Value || found[1].Present {
					t.Errorf("%+v at %v (%v)", found, at, err)
				}
			})
		}
	}
}
