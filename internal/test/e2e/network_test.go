package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

const (
	toServer = faultnet.ToServer
	toClient = faultnet.ToClient
)

func TestLinksAreCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.fill("key", 40, 20)
	w.settled()
	stop := w.run(load{})
	for i := range 12 {
		w.flow(50)
		for _, link := range w.links() {
			link.Refuse(i%3 == 2)
			if i%2 == 0 {
				link.Cut()
			} else {
				link.Reset()
			}
		}
		if i%3 == 2 { // also refuse new connections for a while
			w.fail(20)
			for _, link := range w.links() {
				link.Refuse(false)
			}
		}
		w.recovered("links cut", time.Now())
	}
	stop()
	w.verify()
	w.neverFailed()
}

// All links become black holes without notice while writes continue.
func TestBlackHoles(t *testing.T) {
	t.Parallel()
	all := func(r *follower) *faultnet.Selection { return r.link.Selection }
	data := func(r *follower) *faultnet.Selection { return r.data }
	for _, hole := range []struct {
		name string
		of   func(*follower) *faultnet.Selection
		ways []faultnet.Direction
	}{
		{"replies", all, []faultnet.Direction{toClient}},
		{"requests", all, []faultnet.Direction{toServer}},
		{"both", all, []faultnet.Direction{toServer, toClient}},
		{"replies of log steps", data, []faultnet.Direction{toClient}},
		{"requests of log steps", data, []faultnet.Direction{toServer}},
	} {
		t.Run(hole.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setup{})
			w.fill("key", 40, 20)
			w.settled()
			stop := w.run(load{})
			for _, heal := range []struct {
				name string
				do   func(*faultnet.Proxy)
			}{{"healed", (*faultnet.Proxy).Heal}, {"healed silently", (*faultnet.Proxy).HealSilently}} {
				w.flow(100)
				for _, r := range w.readers {
					for _, way := range hole.ways {
						hole.of(r).BlackHole(way, true)
					}
				}
				eventually.Nil(t, func() error {
					for _, r := range w.readers {
						if s := r.replica.Status(); !s.Degraded || !s.Ready {
							return fmt.Errorf("%s has not detected the fault: %+v", r.name, s)
						}
					}
					return nil
				})
				w.flow(100)
				for _, r := range w.readers {
					heal.do(r.link)
				}
				w.recovered("black hole of "+hole.name+", "+heal.name, time.Now())
			}
			stop()
			w.verify()
			w.neverFailed()
		})
	}
}

// A subscription becomes a black hole: the reader receives the updates from the log and redials. It converges
// even while no subscription works at all.
func TestSubscriptionFallsSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.fill("key", 40, 20)
	w.settled()
	stop := w.run(load{})
	for _, heal := range []struct {
		name string
		do   func(*faultnet.Proxy)
	}{{"healed", (*faultnet.Proxy).Heal}, {"healed silently", (*faultnet.Proxy).HealSilently}} {
		w.flow(100)
		for _, r := range w.readers {
			r.channel.BlackHole(toClient, true)
		}
		since := time.Now()
		w.flow(100)
		head := w.mustHead()
		eventually.Nil(t, func() error {
			for _, r := range w.readers {
				if s := r.replica.Status(); s.Applied.Version < head.Version {
					return fmt.Errorf("%s is at %+v, Redis was at %+v", r.name, s, head)
				}
			}
			return nil
		})
		t.Logf("without a subscription: converged in %v", time.Since(since).Round(time.Millisecond))
		eventually.Nil(t, func() error {
			for _, r := range w.readers {
				if s := r.replica.Status(); s.Subscribed {
					return fmt.Errorf("%s has not detected that its subscription is silent: %+v", r.name, s)
				}
			}
			return nil
		})
		for _, r := range w.readers {
			heal.do(r.link)
		}
		w.recovered("subscription silent, "+heal.name, time.Now())
	}
	stop()
	w.verify()
	w.neverFailed()
}

// The channel loses the last writes, and no others follow: only a probe of the log can detect that.
func TestLastMessageIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	w.mustWrite(w.set("a", 0))
	w.settled()
	for _, r := range w.readers {
		r.channel.BlackHole(toClient, true)
	}
	since := time.Now()
	w.mustWrite(w.remove("a"))
	w.mustWrite(w.set("b", 0), w.set("c", 0))
	head := w.mustHead()
	eventually.Nil(t, func() error {
		for _, r := range w.readers {
			if s := r.replica.Status(); s.Applied != head {
				return fmt.Errorf("%s is at %+v, Redis at %+v", r.name, s, head)
			}
		}
		return nil
	})
	t.Logf("last message lost: converged in %v", time.Since(since).Round(time.Millisecond))
	for _, r := range w.readers {
		r.link.Heal()
	}
	w.verify()
}

// A silent channel is not a fault if nothing is written: the messages of writes from before the subscription
// never arrive.
func TestIdleSubscriptionStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{replicas: -1, replica: func(c *replica.Config) { c.Probe = 20 * time.Millisecond }})
	w.fill("old", 10, 0)
	r := w.addReader()
	w.ready(r)
	for range 2 {
		probes := w.commands("evalsha_ro")
		eventually.Nil(t, func() error { // each probe is a call
			if n := w.commands("evalsha_ro"); n < probes+20 {
				return fmt.Errorf("%d probes", n-probes)
			}
			return nil
		})
		if n := r.count(t, "cache_resubscriptions_total"); n > 0 {
			t.Errorf("the reader closed %v working subscriptions", n)
		}
		r.channel.Cut()
		w.recovered("subscription cut, no writes", time.Now())
	}
	w.verify()
}

func TestLinksAreSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	stop := w.run(load{padding: 1000})
	for _, slow := range []struct {
		name string
		do   func(r *follower)
	}{
		{"delayed by 40 ms", func(r *follower) {
			r.link.Delay(toClient, 30*time.Millisecond)
			r.link.Delay(toServer, 10*time.Millisecond)
		}},
		{"with delayed messages", func(r *follower) { r.channel.Delay(toClient, 200*time.Millisecond) }},
		{"with delayed log steps", func(r *follower) { r.data.Delay(toClient, 200*time.Millisecond) }},
		{"throttled to 256 KiB/s", func(r *follower) { r.link.Throttle(toClient, 256<<10) }},
	} {
		for _, r := range w.readers {
			slow.do(r)
		}
		w.flow(300)
		since := time.Now()
		for _, r := range w.readers {
			r.link.Heal()
		}
		w.recovered("link "+slow.name, since)
	}
	stop()
	w.verify()
}

// Redis disconnects a reader that stops reading, so that it does not affect the others.
func TestRedisCutsOffASlowSubscriber(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{
		redis: []redistest.Option{redistest.Config("client-output-buffer-limit pubsub 64kb 32kb 1")},
		// The liveness check would end the subscription before Redis does.
		replica: func(c *replica.Config) { c.Probe = time.Minute },
	})
	slow := w.readers[0]
	stop := w.run(load{padding: 4 << 10}) // the message of one call stays below the limit
	w.flow(20)
	slow.channel.Stall(toClient, true)
	eventually.Nil(t, func() error {
		clients, err := w.direct.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
		if err != nil {
			return err
		}
		if n := strings.Count(clients, "\n"); n != len(w.readers)-1 {
			return fmt.Errorf("Redis has %d subscribers, want only those of the other readers:\n%s", n, clients)
		}
		return nil
	})
	log, err := os.ReadFile(filepath.Join(w.redis.Dir(), "redis.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "output buffer limits") {
		t.Error("Redis disconnected a subscriber, but not because of its output buffer limit")
	}
	w.recovered("other readers while one is stalled", time.Now(), w.readers[1:]...)
	slow.link.Heal()
	w.recovered("reader disconnected by Redis", time.Now())
	stop()
	w.verify()
}
