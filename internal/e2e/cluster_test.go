package e2e

import (
	"fmt"
	"testing"
	"time"

	"heavy-read-api/internal/cache"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/redistest"
)

// clusterWorld is a world over a Redis Cluster of 3 + 3.
type clusterWorld struct {
	*world
	*redistest.ClusterDeployment
	key string // of the world's shard
}

func newClusterWorld(t *testing.T, s setup) *clusterWorld {
	t.Helper()
	redistest.Require(t)
	d := redistest.StartCluster(t)
	key := cache.ShardKey("posts")
	s.server = d.Owner(key)
	s.nodes = func(c *redisnode.Config) { c.Addrs, c.Key = d.Addrs(), key }
	return &clusterWorld{newWorld(t, s), d, key}
}

// fault is sentinels.fault for a cluster: do returns the server that owns the shard afterwards.
func (w *clusterWorld) fault(name string, mayLose bool, do func(owner, replica *redistest.Server)) {
	w.t.Helper()
	owner := w.Owner(w.key)
	replica := w.ReplicaOf(owner)
	w.follow(owner)
	out := w.watchWrites()
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.flow(100)
	began := time.Now()
	w.failover(mayLose, func() { do(owner, replica); w.WaitPrimary(replica) }, func() *redistest.Server { return w.Owner(w.key) })
	w.flow(50)
	w.recovered(name, began)
	inStep := time.Since(began)
	stop()
	out.end(name, inStep)
	w.verify()
}

func TestClusterFailover(t *testing.T) {
	w := newClusterWorld(t, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		w.fault(fmt.Sprint("CLUSTER FAILOVER ", run), false, func(_, replica *redistest.Server) { w.Failover(replica) })
		w.WaitStable()
	}
}

func TestClusterKill(t *testing.T) {
	w := newClusterWorld(t, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		old := w.Owner(w.key)
		w.fault(fmt.Sprint("kill -9 ", run), true, func(owner, _ *redistest.Server) { owner.Kill() })
		old.Restart()
		w.WaitStable()
	}
}

func TestClusterPause(t *testing.T) {
	w := newClusterWorld(t, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		old := w.Owner(w.key)
		w.fault(fmt.Sprint("SIGSTOP ", run), true, func(owner, _ *redistest.Server) { owner.Pause() })
		old.Resume()
		w.WaitStable()
		w.settled()
		w.verify()
	}
}

// Readers read from the Redis replica of the shard, and go on when it becomes the primary.
func TestClusterRelay(t *testing.T) {
	w := newClusterWorld(t, setup{replicas: -1})
	w.fill("old", 200, 20)
	owner := w.Owner(w.key)
	replica := w.ReplicaOf(owner)
	w.WaitStable()
	both := w.setup.nodes
	w.setup.nodes = func(c *redisnode.Config) {
		both(c)
		c.ReadFrom = redisnode.Replica
	}
	r := w.addReader()
	w.ready(r)
	before, after := w.subscribers(replica), w.subscribers(owner)
	if before != 1 || after != 0 {
		t.Fatalf("%d subscribers at the Redis replica, %d at the primary", before, after)
	}
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.flow(100)
	w.history.Break(func() {
		w.Failover(replica)
		w.WaitStable()
		w.follow(replica)
	})
	w.flow(50)
	w.recovered("failover of the shard that a relay is of", time.Now())
	stop()
	w.neverFailed()
	w.verify()
}

// subscribers returns how many connections have subscribed to the updates at s.
func (w *clusterWorld) subscribers(s *redistest.Server) int64 {
	w.t.Helper()
	n, err := s.Client(w.t).PubSubNumSub(w.t.Context(), "posts_updates").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return n["posts_updates"]
}

// While a slot moves key by key, posts that have moved are not taken for deleted: not by misses, not by
// a reader that loses its connection in the middle, and not by one that takes its snapshot then.
func TestClusterMigration(t *testing.T) {
	w := newClusterWorld(t, setup{})
	const posts = 300
	w.fill("old", posts, 20)
	w.settled()
	from := w.Owner(w.key)
	var to *redistest.Server
	for _, s := range w.Servers() {
		if s != from && s != w.ReplicaOf(from) && w.isPrimary(s) {
			to = s
			break
		}
	}
	stop := w.run(load{keys: 20, pause: 20 * time.Millisecond})
	w.flow(50)
	w.history.Break(func() {}) // what is refused meanwhile is not written
	slot := w.Slot(w.key)
	migration := w.BeginMigration(slot, to)
	migration.MigrateKeys(posts / 2)

	late := w.addReader() // its snapshot has to wait
	for range 20 {
		for _, r := range w.readers[:3] {
			for i := range posts {
				if e, found := r.replica.Get(fmt.Append(nil, "old", i)); found != cache.Hit {
					t.Fatalf("%s answers for old%d, which lives: %v %+v", r.name, i, found, e)
				}
			}
		}
	}
	if s := late.replica.Status(); s.Ready {
		t.Errorf("a reader took half of a slot for all posts: %+v", s)
	}
	migration.End()
	w.follow(to)
	began := time.Now()
	w.flow(50)
	w.ready(w.readers...)
	w.recovered("migration of the slot", began)
	stop()
	w.neverFailed()
	w.verify()
	for _, r := range w.readers {
		w.hasAll(r, "old", posts)
	}
}

// isPrimary reports whether s owns a slot.
func (w *clusterWorld) isPrimary(s *redistest.Server) bool {
	for _, slot := range []int{0, 8000, 16000} {
		if w.OwnerOf(slot) == s {
			return true
		}
	}
	return false
}
