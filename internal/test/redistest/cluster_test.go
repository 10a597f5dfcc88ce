package redistest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
)

func shardedClient(t *testing.T, c *ClusterDeployment) *redis.ClusterClient {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestClusterFailover(t *testing.T) {
	Require(t)
	t.Parallel()
	c := StartCluster(t, Password("secret"))
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), Password: "secret"})
	t.Cleanup(func() { _ = client.Close() })
	owners := map[*Server]bool{}
	for i := range 20 {
		key := fmt.Sprintf("{%d}", i)
		set(t, client, key, "v")
		owners[c.Owner(key)] = true
	}
	if len(owners) != numShards {
		t.Errorf("20 keys have %d owners, want %d", len(owners), numShards)
	}
	old := c.Owner("{1}")
	wantValue(t, old.Client(t), "{1}", "v")
	replica := c.ReplicaOf(old)
	c.Failover(replica)
	if c.Owner("{1}") != replica {
		t.Errorf("the owner is %s, want %s", c.Owner("{1}").Addr(), replica.Addr())
	}
	c.WaitStable()
	if c.ReplicaOf(replica) != old {
		t.Error("the old owner is not the new one's replica")
	}

	replica.Kill() // the owner
	c.WaitPrimary(old)
	eventually.Nil(t, func() error { return old.Client(t).Set(t.Context(), "{1}", "w", 0).Err() })
	replica.Restart()
	c.WaitStable()
	if c.ReplicaOf(old) != replica {
		t.Error("the killed owner did not come back as a replica")
	}
}

func TestClusterMigration(t *testing.T) {
	Require(t)
	t.Parallel()
	c := StartCluster(t, Password("secret"))
	from := c.Owner("{k}")
	to := c.Servers()[slices.IndexFunc(c.Servers()[:numShards], func(s *Server) bool { return s != from })]
	client := from.Client(t)
	for i := range 10 {
		set(t, client, fmt.Sprintf("{k}%d", i), "v")
	}
	left := func(s *Server) int64 {
		n, err := s.Client(t).ClusterCountKeysInSlot(t.Context(), c.Slot("{k}")).Result()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	m := c.BeginMigration(c.Slot("{k}"), to)
	if n := m.MigrateKeys(4); n != 4 || left(from) != 6 || left(to) != 4 {
		t.Errorf("moved %d of 4 keys: %d at the old owner, %d at the new one", n, left(from), left(to))
	}
	if c.Owner("{k}") != from {
		t.Error("the slot changed its owner before End")
	}
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("{k}%d", i))
	}
	if err := client.MGet(t.Context(), all...).Err(); !redis.HasErrorPrefix(err, "TRYAGAIN") {
		t.Errorf("command with keys on both sides: %v, want TRYAGAIN", err)
	}
	if err := client.Get(t.Context(), "{k}none").Err(); !redis.HasErrorPrefix(err, "ASK") {
		t.Errorf("a key that the old owner does not have: %v, want ASK", err)
	}
	if n := m.MigrateKeys(100); n != 6 {
		t.Errorf("moved %d of 6", n)
	}
	m.End()
	c.WaitStable()
	if c.Owner("{k}") != to || left(to) != 10 {
		t.Errorf("the owner is %s with %d keys, want %s with 10", c.Owner("{k}").Addr(), left(to), to.Addr())
	}

	c.BeginMigration(c.Slot("{k}"), from).End() // back, in one step
	if left(from) != 10 {
		t.Errorf("%d of 10 keys came back", left(from))
	}
}

func TestClusterPartition(t *testing.T) {
	Require(t)
	t.Parallel()
	c := StartCluster(t, Proxied(), Config("cluster-allow-reads-when-down yes"))
	client := shardedClient(t, c)
	set(t, client, "k", "v")
	c.WaitStable()
	old := c.Owner("k")
	replica := c.ReplicaOf(old)
	clients := old.Proxy().Only(func(c faultnet.Conn) bool { return len(c.Head) > 0 && !fromNode(c.Head) })
	if clients.Connections() == 0 {
		t.Error("the client does not use the proxy")
	}

	direct := newClient(t, clientOptions(old.Announced(), ""))
	c.Partition(old)
	c.WaitPrimary(replica)
	wantValue(t, direct, "k", "v") // clients still reach the old primary
	winner := newClient(t, clientOptions(replica.Announced(), ""))
	eventually.Nil(t, func() error { return winner.Set(t.Context(), "k", "w", 0).Err() })

	c.Heal()
	c.WaitStable()
	if c.Owner("k") != replica || c.ReplicaOf(replica) != old {
		t.Error("after the partition the old owner is not the new one's replica")
	}
}
