package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// clusterWorld is a world over a Redis Cluster of three primaries and three Redis replicas.
type clusterWorld struct {
	*world
	*redistest.ClusterDeployment
	key string // a key of the world's shard
}

func newClusterWorld(t *testing.T, s setup) *clusterWorld {
	t.Helper()
	redistest.Require(t)
	d := redistest.StartCluster(t, s.redis...)
	key := protocol.ShardKey("posts")
	s.server = d.Owner(key)
	s.nodes = func(c *redisnode.Config) { c.Addrs, c.Key = d.Addrs(), key }
	return &clusterWorld{newWorld(t, s), d, key}
}

// fault is sentinels.fault for a cluster. do must lead to the promotion of replica.
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
	inSync := time.Since(began)
	stop()
	out.end(name, inSync)
	w.verify()
}

func TestClusterFailover(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newClusterWorld(t, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		w.fault(fmt.Sprint("CLUSTER FAILOVER ", run), false, func(_, replica *redistest.Server) { w.Failover(replica) })
		w.WaitStable()
	}
}

func TestClusterKill(t *testing.T) {
	parallelUnlessMeasured(t)
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
	parallelUnlessMeasured(t)
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

// Readers that use the Redis replica of the shard keep working when it becomes the primary.
func TestClusterRelay(t *testing.T) {
	parallelUnlessMeasured(t)
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
	// CLUSTER SLOTS lists a Redis replica only after it has reported its offset; until then the reader uses the
	// primary.
	eventually.Nil(t, func() error {
		if there, elsewhere := w.subscribers(replica), w.subscribers(owner); there != 1 || elsewhere != 0 {
			return fmt.Errorf("%d subscribers at the Redis replica, %d at the primary", there, elsewhere)
		}
		return nil
	})
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.flow(100)
	w.history.Break(func() {
		w.Failover(replica)
		w.WaitStable()
		w.follow(replica)
	})
	w.flow(50)
	w.recovered("failover to the relay", time.Now())
	stop()
	w.neverFailed()
	w.verify()
}

// subscribers returns the number of connections to s that have subscribed to the updates.
func (w *clusterWorld) subscribers(s *redistest.Server) int64 {
	w.t.Helper()
	n, err := s.Client(w.t).PubSubNumSub(w.t.Context(), "posts_updates").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return n["posts_updates"]
}

// While a slot is migrated key by key, posts that have moved do not count as deleted: not after misses, not
// for a reader that reconnects during the migration, and not for one that starts its snapshot then.
func TestClusterMigration(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newClusterWorld(t, setup{})
	const posts = 300
	w.fill("old", posts, 20)
	w.settled()
	to := w.otherPrimary()
	stop := w.run(load{keys: 20, pause: 20 * time.Millisecond})
	w.flow(50)
	w.history.Break(func() {}) // writes that are refused during the migration are lost
	slot := w.Slot(w.key)
	migration := w.BeginMigration(slot, to)
	migration.MigrateKeys(posts / 2)

	late := w.addReader() // its snapshot must wait for the end of the migration
	for range 20 {
		for _, r := range w.readers[:3] {
			for i := range posts {
				if e, found := r.replica.Get(fmt.Append(nil, "old", i)); found != store.Hit {
					t.Fatalf("%s: old%d exists, but the lookup returned %v %+v", r.name, i, found, e)
				}
			}
		}
	}
	if s := late.replica.Status(); s.Ready {
		t.Errorf("a reader accepted half of a slot as the whole data set: %+v", s)
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

// Slots are migrated with redis-cli, and atomically if the server supports it: no read fails, no post counts
// as deleted, and no write has an unknown outcome.
func TestClusterReshard(t *testing.T) {
	// The slot of the posts is 14591. Its shard begins just below it, so that the test migrates few slots.
	w := newClusterWorld(t, setup{redis: []redistest.Option{redistest.FirstSlots([3]int{0, 5000, 14580})}})
	w.moveSlot("redis-cli --cluster reshard", func(slot int, to *redistest.Server) { w.Reshard(slot, to) })
	if w.failed.Load() == 0 {
		t.Error("no write was refused: the load did not overlap the migration")
	}
}

func TestClusterAtomicMigration(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newClusterWorld(t, setup{})
	if !w.MigratesAtomically() {
		t.Log("atomic migration not tested: this server has no CLUSTER MIGRATESLOTS (Valkey 9)")
		return
	}
	w.moveSlot("CLUSTER MIGRATESLOTS", w.MigrateAtomically)
}

// moveSlot runs move, which migrates the shard's slot to another primary, under load, while a reader with
// little memory reads most posts from Redis, and connections break.
func (w *clusterWorld) moveSlot(name string, move func(slot int, to *redistest.Server)) {
	w.t.Helper()
	const posts = 3000
	w.fill("old", posts, 100)
	w.settled()
	full := w.readers
	out := w.watchWrites()
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.setup.replica = func(c *replica.Config) { c.Local.MaxSize = 64 << 10 }
	small := w.addReader()
	w.ready(small)
	w.flow(50)

	to := w.otherPrimary()
	var running sync.WaitGroup
	moved := make(chan struct{})
	fetches, failures := 0, 0 // reads of the small reader that went to Redis, and those that failed
	running.Go(func() {       // until the migration has ended
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i = (i + 1) % posts {
			key := fmt.Sprint("old", i)
			for _, r := range full {
				if _, found := r.replica.Get([]byte(key)); found != store.Hit {
					w.t.Errorf("%s: %s exists, but the lookup returned %v", r.name, key, found)
					return
				}
			}
			if i%20 != 0 {
				continue
			}
			fetches++
			if _, _, err := w.observe(small, key); err != nil {
				failures++
				w.unread.Add(-1) // reads of keys that have moved are expected to fail
			}
			select {
			case <-moved:
				return
			case <-tick.C:
			}
		}
	})
	operator := w.direct
	running.Go(func() { // cut the subscriptions during the migration
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-moved:
				return
			case <-tick.C:
				if err := operator.ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err(); err != nil {
					w.t.Errorf("cut the subscriptions: %v", err)
				}
			}
		}
	})
	began := time.Now()
	func() {
		defer running.Wait()
		defer close(moved)
		move(w.Slot(w.key), to)
	}()
	took := time.Since(began)
	w.follow(to)
	w.flow(50)
	w.recovered(name, began)
	inSync := time.Since(began)
	stop()
	out.end(name, inSync)
	w.settled()
	w.t.Logf("%s took %v; %d reads went to Redis, and %d of them failed", name, took.Round(time.Millisecond), fetches, failures)
	if n := w.unknown.Load(); n > 0 {
		w.t.Errorf("%d writes have an unknown outcome", n)
	}
	for i := range posts {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		_, present, err := small.replica.Fetch(ctx, fmt.Sprint("old", i), replica.Min{})
		cancel()
		if err != nil || !present {
			w.t.Fatalf("after the migration %s returns for old%d: present %v, %v", small.name, i, present, err)
		}
	}
	w.verify()
	for _, r := range full {
		w.hasAll(r, "old", posts)
	}
}

// otherPrimary returns a primary that does not own the shard's slot.
func (w *clusterWorld) otherPrimary() *redistest.Server {
	w.t.Helper()
	owner := w.Owner(w.key)
	for _, s := range w.Servers() {
		if s != owner && w.isPrimary(s) {
			return s
		}
	}
	w.t.Fatal("no other primary")
	return nil
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
