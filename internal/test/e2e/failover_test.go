package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// pair is a world whose Redis has a standby, a Redis replica behind a proxy.
type pair struct {
	*world
	standby     *redistest.Server
	replication *faultnet.Proxy
}

func newPair(t *testing.T, s setup) *pair {
	t.Helper()
	redistest.Require(t)
	s.server = redistest.Start(t, s.redis...)
	p := &pair{replication: faultnet.NewProxy(t, s.server.Addr())}
	p.standby = redistest.Start(t, redistest.ReplicaOf(p.replication))
	p.world = newWorld(t, s)
	return p
}

// failover kills Redis, promotes the standby and returns the number of writes that it lacks. Replication is
// stalled before, so that the newest writes are lost.
func (p *pair) failover() (lost uint64) {
	p.t.Helper()
	before := p.mustHead()
	p.history.Break(func() {
		p.redis.Kill()
		p.standby.Promote()
		p.moveTo(p.standby)
	})
	after := p.mustHead()
	if after.Epoch != before.Epoch {
		p.t.Fatalf("the standby is at %+v, Redis was at %+v: want the same epoch", after, before)
	}
	return before.Version - min(before.Version, after.Version)
}

// A standby that lacks the last writes is promoted: the epoch stays, and the versions of the lost writes are
// reused.
func TestStandbyThatLagsIsPromoted(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	p.fill("old", 200, 20)
	p.standby.WaitReplicaInSync(p.redis)
	stop := p.run(load{})
	p.flow(200)
	p.replication.Stall(toClient, true)
	p.flow(100)
	lost := p.failover()
	since := time.Now()
	if lost < 50 {
		t.Fatalf("the standby lacks %d writes, so the test proves nothing", lost)
	}
	t.Logf("%d writes are lost", lost)
	p.recovered("standby promoted", since)
	p.flow(200)
	stop()
	p.verify()
}

// Like the test above, but the readers reconnect only after all versions that they have applied have been
// reused. Only the write ids show that the history is another one.
func TestStandbyCatchesUpInAnotherHistory(t *testing.T) {
	t.Parallel()
	for _, more := range []struct {
		name string
		n    int // number of writes beyond the version that the readers have applied
	}{{"one short", -1}, {"the same version", 0}, {"beyond", 25}} {
		t.Run(more.name, func(t *testing.T) {
			p := newPair(t, setup{})
			p.fill("old", 50, 20)
			p.standby.WaitReplicaInSync(p.redis)
			p.replication.Stall(toClient, true)
			p.fill("lost", 20, 20) // applied by the readers, but never received by the standby
			p.fill("old", 20, 20)
			p.settled()
			known := p.mustHead()

			for _, r := range p.readers {
				r.link.Refuse(true)
				r.link.Cut()
			}
			lost := p.failover()
			if lost != 40 {
				t.Fatalf("the standby lacks %d writes, want 40", lost)
			}
			for i := range int(lost) + more.n {
				p.mustWrite(p.set(fmt.Sprint("new", i), 20))
			}
			if now := p.mustHead(); now.Version != known.Version+uint64(more.n) || now.WriteID == known.WriteID {
				t.Fatalf("Redis is at %+v, want %d writes after %+v in another history", now, more.n, known)
			}
			since := time.Now()
			for _, r := range p.readers {
				r.link.Refuse(false)
			}
			p.recovered("another history, "+more.name, since)
			p.settled()
			for _, r := range p.readers {
				if _, found := r.replica.Get([]byte("lost0")); found != store.Absent {
					t.Errorf("%s still has a lost write: %v", r.name, found)
				}
			}
			p.verify()
		})
	}
}

// A failover happens during a snapshot. The standby has every write, so the log does not show the failover.
func TestRedisIsReplacedDuringASnapshot(t *testing.T) {
	p := newPair(t, setup{replicas: 1})
	p.fill("old", 20_000, 200)
	late := p.addReader(func(r *follower) { r.data.Throttle(toClient, 8<<20) })
	p.loading(late, 3000)
	p.standby.WaitReplicaInSync(p.redis)
	if lost := p.failover(); lost != 0 {
		t.Fatalf("the standby lacks %d writes, want none", lost)
	}
	since := time.Now()
	late.link.Heal()
	p.recovered("Redis replaced during a snapshot", since)
	p.hasAll(late, "old", 20_000)
	p.verify()
}

// Like the test above, but behind a proxy that speaks the Redis protocol, as in cloud services: the connection
// of the snapshot stays open, and its cursor continues on another server, where it is meaningless.
func TestServerIsSwappedUnderAnOpenConnection(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{replicas: -1})
	p.fill("old", 20_000, 100)
	p.standby.WaitReplicaInSync(p.redis)
	swap := newSwitchboard(t, p.redis.Addr())
	late := p.addReader(func(r *follower) {
		r.link.SetTarget(swap.addr())
		r.data.Throttle(toClient, 4<<20)
	})
	p.loading(late, 3000)
	p.standby.Promote()
	swap.moveTo(p.standby.Addr())
	late.link.Heal()
	p.redis.Kill()
	p.redis, p.direct = p.standby, p.standby.Client(t)
	p.uplink.SetTarget(p.standby.Addr())
	since := time.Now()
	p.recovered("server swapped under an open connection", since)
	if n := late.count(t, "cache_snapshots_total"); n < 2 {
		t.Errorf("%v snapshots: one that spanned two servers was accepted", n)
	}
	p.hasAll(late, "old", 20_000)
	p.verify()
}

// cluster makes the address a seed of a Redis Cluster. The only node announces its own address, so only the
// queries for the slot map go through the links.
func cluster(c *redisnode.Config) {
	c.Addrs = append(c.Addrs, c.Addrs[0])
	c.Key = protocol.ShardKey("posts")
}

// A Redis Cluster of one node: reads, writes and a restart, with discovery through the slot map.
func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	s := setup{redis: []redistest.Option{redistest.Cluster()}, nodes: cluster}
	w := newWorld(t, s)
	w.fill("old", 100, 20)
	stop := w.run(load{})
	w.flow(300)
	w.redis.Kill()
	w.fail(20)
	w.redis.Restart()
	w.recovered("node of a cluster killed", time.Now())
	w.flow(100)
	stop()
	w.verify()

	// A miss, a condition and a delete.
	small := w.addReader()
	w.ready(small)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if e, present, err := small.replica.Fetch(ctx, "old7", replica.Min{}); err != nil || !present || e.Value == "" {
		t.Errorf("Fetch: %+v %v %v", e, present, err)
	}
	again := w.set("old7", 0)
	again.If = protocol.Condition{Absent: true}
	if got := w.mustWrite(again)[0].Outcome; got != protocol.ConditionFailed {
		t.Errorf("create of an existing key: outcome %c", got)
	}
	token := w.mustWrite(w.remove("old7"))[0].Token
	w.await(small, token)
	if _, found := small.replica.Get([]byte("old7")); found != store.Absent {
		t.Errorf("after the delete: %v", found)
	}
	w.verify()
}
