package e2e

import (
	"errors"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// haRuns is the number of failovers of each kind. The times are logged but not asserted, because the machine
// may be busy.
var haRuns = flag.Int("ha.runs", 1, "how often each fault of Sentinel and Cluster is repeated")

const haDownAfter = 3 * time.Second

// parallelUnlessMeasured is t.Parallel, unless the test is repeated to measure how long a failover takes.
func parallelUnlessMeasured(t *testing.T) {
	if *haRuns == 1 {
		t.Parallel()
	}
}

// sentinels is a world whose Redis is watched by Sentinels.
type sentinels struct {
	*world
	*redistest.SentinelDeployment
}

func newSentinels(t *testing.T, o redistest.SentinelOptions, s setup) *sentinels {
	t.Helper()
	redistest.Require(t)
	o.DownAfter, o.Quick = haDownAfter, *haRuns == 1 // measurements need the default periods
	d := redistest.StartSentinel(t, o)
	s.server = d.Servers()[0]
	s.nodes = func(c *redisnode.Config) { c.Addrs, c.MasterName = d.Addrs(), redistest.SentinelName }
	return &sentinels{newWorld(t, s), d}
}

// outage measures the longest time without a successful write.
type outage struct {
	w       *world
	acked   int64  // acknowledged writes before the fault
	version uint64 // version of Redis before the fault
	longest atomic.Int64
	done    chan struct{}
	ended   chan struct{}
}

// watchWrites starts the measurement, once all readers hold all values: until then a read may need Redis. No write may be in
// flight.
func (w *world) watchWrites() *outage {
	w.t.Helper()
	w.settled()
	o := &outage{w: w, acked: w.acked.Load(), version: w.mustHead().Version, done: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(o.ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		acked, at := w.acked.Load(), time.Now()
		for {
			select {
			case <-o.done:
				return
			case now := <-tick.C:
				if n := w.acked.Load(); n != acked {
					acked, at = n, now
				}
				o.longest.Store(max(o.longest.Load(), int64(now.Sub(at))))
			}
		}
	}()
	return o
}

// end ends the measurement and logs the cost of a fault. No write may be in flight. The number of lost writes is
// a lower bound, because each executed write of unknown outcome hides a lost one.
func (o *outage) end(fault string, inSync time.Duration) {
	o.w.t.Helper()
	close(o.done)
	<-o.ended
	acked, taken := o.w.acked.Load()-o.acked, int64(o.w.mustHead().Version-o.version)
	o.w.t.Logf("%s: writes out %v, readers in sync after %v, %d of %d acknowledged writes lost, %d reads failed",
		fault, time.Duration(o.longest.Load()).Round(10*time.Millisecond), inSync.Round(10*time.Millisecond),
		max(0, acked-taken), acked, o.w.unread.Load())
	o.w.neverFailed()
}

// failover runs do and waits until the writers write to the server that primary returns. It polls primary,
// because a cluster may elect another one meanwhile. With mayLose acknowledged writes may be lost, as
// asynchronous replication allows.
func (w *world) failover(mayLose bool, do func(), primary func() *redistest.Server) {
	w.t.Helper()
	all := func() {
		do()
		var before protocol.Head
		w.redis = nil
		eventually.Nil(w.t, func() (err error) {
			if now := primary(); now != w.redis {
				w.follow(now)
				before, err = w.head()
				return errors.Join(errors.New("the primary has changed"), err)
			}
			if now, err := w.head(); err != nil || now == before {
				return fmt.Errorf("no writes reach the new primary, at %+v: %v", now, err)
			}
			return nil
		})
	}
	if mayLose {
		w.history.Break(all)
	} else {
		all()
	}
}

// follow makes server the one that the world inspects.
func (w *world) follow(server *redistest.Server) { w.redis, w.direct = server, server.Client(w.t) }

// fault runs a fault under load, waits until the writers use another server and the readers are in sync with
// it, and checks the promises. With mayLose acknowledged writes may be lost, as asynchronous replication
// allows.
func (w *sentinels) fault(name string, mayLose bool, do func(primary *redistest.Server)) {
	w.t.Helper()
	old := w.Primary()
	w.follow(old)
	out := w.watchWrites()
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.flow(100)
	began := time.Now()
	w.failover(mayLose, func() { do(old); w.WaitFailover(old) }, w.Primary)
	w.flow(50)
	w.recovered(name, began)
	inSync := time.Since(began)
	stop()
	out.end(name, inSync)
	w.verify()
}

// restore restarts or resumes every server and waits until the deployment is stable.
func (w *sentinels) restore(servers ...*redistest.Server) {
	w.t.Helper()
	for _, s := range servers {
		s.Restart()
	}
	w.WaitStable()
}

// With WAIT 1 no acknowledged write is lost when the primary is killed.
func TestSentinelKill(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newSentinels(t, redistest.SentinelOptions{}, setup{publisher: func(c *publisher.Config) { c.Replicas = 1 }})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		old := w.Primary()
		w.fault(fmt.Sprint("kill -9 ", run), false, func(primary *redistest.Server) { primary.Kill() })
		w.restore(old)
	}
}

func TestSentinelPause(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newSentinels(t, redistest.SentinelOptions{}, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		old := w.Primary()
		w.fault(fmt.Sprint("SIGSTOP ", run), true, func(primary *redistest.Server) { primary.Pause() })
		// After SIGCONT the old primary still acts as one until the Sentinels demote it.
		stop := w.run(load{pause: 20 * time.Millisecond})
		old.Resume()
		w.WaitStable()
		stop()
		w.neverFailed()
		w.verify()
	}
}

// A failover whose old primary stays up and remains a primary for a while.
func TestSentinelFailover(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newSentinels(t, redistest.SentinelOptions{}, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		w.fault(fmt.Sprint("SENTINEL FAILOVER ", run), true, func(*redistest.Server) { w.Failover() })
		w.WaitStable()
	}
}

// The primary and a Sentinel are cut off from the others while clients reach both sides. The old primary
// refuses writes once no Redis replica acknowledges them, and clients follow the newest configuration.
func TestSentinelPartition(t *testing.T) {
	parallelUnlessMeasured(t)
	o := redistest.SentinelOptions{
		All:     []redistest.Option{redistest.Proxied()},
		Servers: []redistest.Option{redistest.MinReplicas(1, 2*time.Second)},
	}
	w := newSentinels(t, o, setup{})
	w.fill("old", 200, 20)
	for run := range *haRuns {
		w.fault(fmt.Sprint("partition ", run), true, func(primary *redistest.Server) { w.Partition(primary, w.Sentinels()[0]) })
		w.Heal()
		w.WaitStable()
		w.settled()
		w.verify()
	}
}

// A writer reaches only the old primary and a Sentinel that was cut off with it. Its writes are lost until the
// old primary refuses them because no Redis replica acknowledges them.
func TestSentinelWriterAlone(t *testing.T) {
	parallelUnlessMeasured(t)
	o := redistest.SentinelOptions{
		All:     []redistest.Option{redistest.Proxied()},
		Servers: []redistest.Option{redistest.MinReplicas(1, 2*time.Second)},
	}
	w := newSentinels(t, o, setup{})
	w.fill("old", 200, 20)
	cutOff := w.Sentinels()[0]
	w.setup.nodes = func(c *redisnode.Config) {
		c.Addrs, c.MasterName = []string{cutOff.Announced()}, redistest.SentinelName
	}
	w.publisher = w.newPublisher(w.uplink)
	old := w.Primary()
	w.follow(old)
	out := w.watchWrites()
	stop := w.run(load{pause: 20 * time.Millisecond})
	w.flow(100)
	w.history.Break(func() {
		w.Partition(old, cutOff)
		w.WaitFailover(old)
		w.fail(200) // until the old primary refuses all writes
		w.Heal()
		w.failover(false, func() {}, w.Primary)
	})
	began := time.Now()
	w.flow(50)
	w.recovered("only a writer with the old primary", began)
	inSync := time.Since(began)
	stop()
	out.end("only a writer with the old primary", inSync)
	w.WaitStable()
	w.verify()
}

// A reader keeps its server while all Sentinels are down. A reader that starts then reports why it is not
// ready.
func TestSentinelsAway(t *testing.T) {
	parallelUnlessMeasured(t)
	w := newSentinels(t, redistest.SentinelOptions{}, setup{replicas: 1})
	w.fill("old", 50, 20)
	w.settled()
	for _, s := range w.Sentinels() {
		s.Kill()
	}
	stop := w.run(load{})
	w.flow(100)
	late := w.addReader()
	eventually.Nil(t, func() error {
		if s := late.replica.Status(); s.Ready || s.Problem == "" {
			return fmt.Errorf("status without a Sentinel: %+v", s)
		}
		return nil
	})
	for _, s := range w.Sentinels() {
		s.Restart()
	}
	w.ready(late)
	stop()
	w.neverFailed()
	w.verify()
}
