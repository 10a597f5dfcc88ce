package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// A flood of direct reads takes no connection from log steps: the replica stays in sync and answers misses, and excess
// reads fail soon.
func TestDirectReadsLeaveTheReplicaAlone(t *testing.T) {
	s := redistest.Start(t)
	proxy := faultnet.NewProxy(t, s.Addr())
	p := newPublisher(t, s.Addr())
	write(t, p, set("a", "1"))
	direct := nodetest.New(t, proxy.Addr(), func(c *redisnode.Config) { *c = DirectConfig(*c) })
	r := startReplica(t, proxy.Addr(), func(c *Config) { c.Direct = direct })
	ready(t, r)
	proxy.Only(func(faultnet.Conn) bool { return true }).Delay(faultnet.ToClient, 80*time.Millisecond) // each read holds a connection for this long

	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var answered, refused atomic.Int64
	for range 500 {
		flood.Go(func() {
			for ctx.Err() == nil {
				switch e, present, err := r.Direct(ctx, "a", Min{}); {
				case ctx.Err() != nil:
				case errors.Is(err, errUnavailable):
					refused.Add(1)
				case err != nil || !present || e.Value != "1":
					t.Errorf("a direct read answers %q, %v, %v", e.Value, present, err)
					return
				default:
					answered.Add(1)
				}
			}
		})
	}
	for range 20 {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		if _, present, err := r.Fetch(one, "unknown", Min{}); err != nil || present {
			t.Errorf("a miss during direct reads: %v, %v", present, err)
		}
		cancel()
	}
	stop()
	flood.Wait()
	if answered.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d direct reads were answered, %d refused", answered.Load(), refused.Load())
	}
	if n := testutil.ToFloat64(r.metrics.resubscriptions); n > 0 {
		t.Errorf("%v live subscriptions were closed as silent", n)
	}
}

// A pool that is too small, or shared with direct reads, is refused.
func TestReplicaRefusesTooFewConnections(t *testing.T) {
	tiny := nodetest.New(t, "127.0.0.1:1", func(c *redisnode.Config) { c.PoolSize = poolConns - 1 })
	shared := nodetest.New(t, "127.0.0.1:1")
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Redis: tiny}, "PoolSize"},
		{Config{Redis: shared, Direct: shared}, "DirectConfig"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want an error with %s", err, c.want)
		}
	}
}

// A direct read that requires a version is not answered by a server that was demoted: it may lack that version.
func TestDirectReadsOfADemotedServer(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	write(t, newPublisher(t, server.Addr()), set("a", "1"))
	direct := nodetest.New(t, server.Addr(), func(c *redisnode.Config) { *c = DirectConfig(*c) })
	r := startReplica(t, server.Addr(), func(c *Config) { c.Direct = direct })
	ready(t, r)
	read := func() (store.Entry, bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return r.Direct(ctx, "a", Min{Latest: true})
	}
	if e, present, err := read(); err != nil || !present || e.Value != "1" {
		t.Fatalf("%+v, %v, %v", e, present, err)
	}
	server.ReplicaOf(redistest.Start(t)) // of another data set
	server.WaitReplicaOnline()
	if e, present, err := read(); !errors.Is(err, redisnode.ErrNotPrimary) {
		t.Errorf("a demoted server: %+v, %v, %v", e, present, err)
	}
	server.Promote()
	write(t, newPublisher(t, server.Addr()), set("a", "2"))
	eventually.Nil(t, func() error {
		if e, present, err := read(); err != nil || !present || e.Value != "2" {
			return fmt.Errorf("after the promotion: %+v, %v, %v", e, present, err)
		}
		return nil
	})
}
