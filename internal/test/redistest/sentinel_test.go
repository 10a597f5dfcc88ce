package redistest

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/eventually"
)

// calm avoids needless failovers on a busy machine.
var calm = SentinelOptions{DownAfter: 5 * time.Second, Quick: true}

func failoverClient(t *testing.T, d *SentinelDeployment, o redis.FailoverOptions) *redis.Client {
	t.Helper()
	o.MasterName, o.SentinelAddrs, o.MaxRetries = SentinelName, d.Addrs(), -1
	c := redis.NewFailoverClient(&o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSentinelFailoverOnDemand(t *testing.T) {
	Require(t)
	t.Parallel()
	d := StartSentinel(t, calm)
	old := d.Primary()
	if old != d.Servers()[0] || len(d.Servers()) != 3 || len(d.Sentinels()) != 3 {
		t.Fatalf("primary %s among %d servers and %d Sentinels", old.Addr(), len(d.Servers()), len(d.Sentinels()))
	}
	set(t, old.Client(t), "k", "v")
	d.WaitStable() // the replicas have it

	primary := d.Failover()
	if primary == old || d.Primary() != primary {
		t.Errorf("after a failover from %s to %s the primary is %s", old.Addr(), primary.Addr(), d.Primary().Addr())
	}
	wantValue(t, primary.Client(t), "k", "v")
	d.WaitStable() // the old primary is a replica now
	for _, s := range []*Server{primary, old} {
		want := map[bool]string{true: "master", false: "slave"}[s == primary]
		s.Restart()
		if info, err := s.command("INFO", "replication"); err != nil || infoField(info, "role") != want {
			t.Errorf("restarted, %s is %q, %v; want %q", s.Addr(), infoField(info, "role"), err, want)
		}
	}
	d.Sentinels()[0].Restart()
	d.WaitStable()
	if d.Primary() != primary {
		t.Errorf("after restarts %s is the primary, want %s", d.Primary().Addr(), primary.Addr())
	}
}

func TestSentinelReplacesAKilledPrimary(t *testing.T) {
	Require(t)
	t.Parallel()
	d := StartSentinel(t, SentinelOptions{
		Quick:     true,
		Servers:   []Option{Password("secret"), User("app", "pw", "~* &* +@all"), MinReplicas(1, 1500*time.Millisecond)},
		Sentinels: []Option{Password("guard"), User("app", "spw", "-@all +ping +sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe &+switch-master")},
	})
	c := failoverClient(t, d, redis.FailoverOptions{Username: "app", Password: "pw", SentinelUsername: "app", SentinelPassword: "spw"})
	set(t, c, "k", "v")
	d.WaitStable()
	if got := c.ConfigGet(t.Context(), "min-replicas-max-lag").Val()["min-replicas-max-lag"]; got != "2" {
		t.Errorf("min-replicas-max-lag is %q, want 2", got)
	}

	old := d.Primary()
	old.Kill()
	primary := d.WaitFailover(old)
	if primary == old {
		t.Fatal("a killed server is the primary")
	}
	eventually.Nil(t, func() error { return c.Set(t.Context(), "after", "v", 0).Err() })
	old.Restart()
	d.WaitStable()
	wantValue(t, old.Client(t), "after", "v")
}

// Servers and Sentinels are cut off from the primary while clients reach both sides, so the old primary
// keeps accepting writes, which will be lost.
func TestSentinelPartition(t *testing.T) {
	Require(t)
	t.Parallel()
	d := StartSentinel(t, SentinelOptions{Quick: true, All: []Option{Proxied()}})
	old := d.Primary()
	for _, addr := range d.Addrs() {
		if slices.ContainsFunc(d.Sentinels(), func(s *Server) bool { return s.Addr() == addr }) {
			t.Errorf("clients get %s, a Sentinel's own address", addr)
		}
	}
	client := newClient(t, clientOptions(old.Announced(), ""))
	set(t, client, "k", "before")
	d.WaitStable()

	d.Partition(old)
	primary := d.WaitFailover(old)
	set(t, client, "k", "lost")
	winner := newClient(t, clientOptions(primary.Announced(), ""))
	set(t, winner, "k", "after")

	d.Heal()
	d.WaitStable()
	if d.Primary() != primary {
		t.Errorf("after the partition %s is the primary, want %s", d.Primary().Addr(), primary.Addr())
	}
	wantValue(t, newClient(t, clientOptions(old.Announced(), "")), "k", "after")
}
