package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// A reader that requires a primary does not accept a Redis replica: it reports the problem, and recovers when
// the server is promoted.
func TestReaderRefusesARedisReplica(t *testing.T) {
	redistest.Require(t)
	primary := redistest.Start(t)
	replica := redistest.Start(t, redistest.ReplicaOf(primary))
	w := newWorld(t, setup{server: replica, replicas: -1})
	r := w.addReader()
	eventually.Nil(t, func() error {
		if s := r.replica.Status(); s.Ready || !strings.Contains(s.Problem, "not a primary") {
			return fmt.Errorf("status with a Redis replica: %+v", s)
		}
		return nil
	})
	replica.Promote()
	w.fill("old", 20, 20)
	w.ready(r)
	w.settled() // the first write began a history; wait for the snapshot of it
	stop := w.run(load{})
	w.flow(50)
	replica.ReplicaOf(primary) // demoted under load
	w.fail(5)
	eventually.Nil(t, func() error {
		if s := r.replica.Status(); !s.Ready || !s.Degraded || s.Synced || s.Lag == 0 || !strings.Contains(s.Problem, "not a primary") {
			return fmt.Errorf("status with a demoted server: %+v", s)
		}
		return nil
	})
	stop()
	w.neverFailed()
}

// Readers use the last of a chain of Redis replicas. They become degraded when a link in the middle of the chain
// stalls, and they follow a promotion without a snapshot.
func TestRelay(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	ping := redistest.Config("repl-ping-replica-period 1")
	primary := redistest.Start(t, ping)
	link := faultnet.NewProxy(t, primary.Addr())
	middle := redistest.Start(t, redistest.ReplicaOf(link), ping)
	last := redistest.Start(t, redistest.ReplicaOf(middle), ping)
	last.WaitReplicaOnline()
	w := newWorld(t, setup{server: primary, replicas: -1})
	w.fill("old", 200, 20)
	w.setup.nodes = func(c *redisnode.Config) { c.Addrs, c.ReadFrom = []string{last.Addr()}, redisnode.Replica }
	for range 2 {
		w.addReader()
	}
	w.ready(w.readers...)
	stop := w.run(load{})
	w.flow(200)
	w.recovered("reading from a relay", time.Now())

	replication := link.Only(faultnet.Contains("PSYNC"))
	replication.Stall(toClient, true)
	since := time.Now()
	eventually.Nil(t, func() error {
		for _, r := range w.readers {
			if s := r.replica.Status(); !s.Degraded || s.Lag == 0 || !strings.Contains(s.Problem, middle.Addr()) {
				return fmt.Errorf("status of %s behind a silent link: %+v", r.name, s)
			}
		}
		return nil
	})
	t.Logf("degraded %v after the link was stalled", time.Since(since).Round(time.Millisecond))
	replication.Stall(toClient, false)
	w.recovered("link resumed", time.Now())
	stop()
	w.settled()

	snapshots := 0.0
	for _, r := range w.readers {
		snapshots += r.count(t, "cache_snapshots_total")
	}
	last.WaitReplicaInSync(middle)
	w.history.Break(func() {
		last.Promote()
		w.follow(last)
		w.uplink.SetTarget(last.Addr())
		w.setup.nodes = func(*redisnode.Config) {}
		w.publisher = w.newPublisher(w.uplink)
	})
	stop = w.run(load{})
	w.flow(100)
	w.recovered("promotion", time.Now())
	stop()
	w.neverFailed()
	w.verify()
	for _, r := range w.readers {
		snapshots -= r.count(t, "cache_snapshots_total")
	}
	if snapshots != 0 {
		t.Errorf("a promotion caused %v snapshots, want none", -snapshots)
	}
}
