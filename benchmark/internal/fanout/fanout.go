// Package fanout measures what a write costs Redis by the number of its subscribers, with and without Redis replicas as
// relays.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/internal/cache/protocol"
)

// Config describes one measurement.
type Config struct {
	Upstream    *lab.Upstream
	Relays      []*lab.Upstream // Redis replicas that have the subscribers; without any, the primary has them
	Subscribers int
	Posts       int // number of posts that exist
	Rate        int // writes per second
	Duration    time.Duration
}

// Result is the result of one measurement.
type Result struct {
	Writes  int
	Took    time.Duration   // until the last write was acknowledged
	Primary time.Duration   // CPU time of the primary per write
	Relay   time.Duration   // CPU time of each relay per write, on average; 0 without relays
	Delays  []time.Duration // sorted: from the time in the frame, when the writer sends the write to Redis, to the delivery
}

// errNoCPU reports a platform that does not report the CPU time of processes.
var errNoCPU = errors.New("this platform does not report the CPU time of processes")

// deliveryLimit is the time by which the last write must have been delivered to every subscriber.
const deliveryLimit = 5 * time.Second

// Measure writes at a constant rate to a writer while subscribers receive. Two of them are timed, the first and the last one
// on the first server. A subscriber that does not receive every write is an error.
func Measure(ctx context.Context, c Config) (*Result, error) {
	sources := []*lab.Process{c.Upstream.Redis}
	if len(c.Relays) > 0 {
		sources = nil
		for _, r := range c.Relays {
			sources = append(sources, r.Redis)
		}
	}
	addrs := make([]string, len(sources))
	for i, p := range sources {
		addrs[i] = p.Addr
	}
	first, err := newTimed(ctx, addrs[0])
	if err != nil {
		return nil, err
	}
	defer first.close()
	others, err := subscribe(ctx, addrs, max(0, c.Subscribers-2))
	if err != nil {
		return nil, err
	}
	defer others.close()
	last, err := newTimed(ctx, addrs[0])
	if err != nil {
		return nil, err
	}
	defer last.close()

	processes := append([]*lab.Process{c.Upstream.Redis}, sources...)
	before, err := cpu(processes)
	if err != nil {
		return nil, err
	}
	r := new(Result)
	began := time.Now()
	if r.Writes, err = (lab.Updates{Writer: c.Upstream.Writer.Addr, Posts: c.Posts, Rate: c.Rate, Duration: c.Duration}).Run(ctx); err != nil {
		return nil, err
	}
	r.Took = time.Since(began)
	after, err := cpu(processes)
	if err != nil {
		return nil, err
	}
	each := func(i int) time.Duration { return (after[i] - before[i]) / time.Duration(max(r.Writes, 1)) }
	r.Primary = each(0)
	for i := range c.Relays {
		r.Relay += each(i+1) / time.Duration(len(c.Relays))
	}
	if err := delivered(ctx, r.Writes, others, first, last); err != nil {
		return nil, err
	}
	r.Delays = slices.Concat(first.delays(), last.delays())
	slices.Sort(r.Delays)
	return r, others.close()
}

func cpu(processes []*lab.Process) ([]time.Duration, error) {
	times := make([]time.Duration, len(processes))
	for i, p := range processes {
		var ok bool
		if times[i], ok = p.OwnCPU(); !ok {
			return nil, errNoCPU
		}
	}
	return times, nil
}

// delivered blocks until every subscriber has received all writes.
func delivered(ctx context.Context, writes int, others *subscribers, timed ...*timed) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryLimit)
	defer cancel()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		missing := 0
		for _, t := range timed {
			missing = max(missing, writes-len(t.delays()))
		}
		least, most := others.received()
		if missing == 0 && least == most {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v a subscriber lacks %d of %d writes, and another one %d of %d bytes", deliveryLimit, missing, writes, most-least, most)
		case <-tick.C:
		}
	}
}

// timed is a subscriber that reads every message at once and notes its delay.
type timed struct {
	client *redis.Client
	sub    *redis.PubSub
	ended  chan struct{}

	mu    sync.Mutex
	times []time.Duration // guarded by mu
}

func newTimed(ctx context.Context, addr string) (*timed, error) {
	t := &timed{client: redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1}), ended: make(chan struct{})}
	t.sub = t.client.Subscribe(ctx, protocol.DefaultChannel)
	if _, err := t.sub.Receive(ctx); err != nil {
		close(t.ended)
		t.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	go t.receive(ctx)
	return t, nil
}

func (t *timed) receive(ctx context.Context) {
	defer close(t.ended)
	var c protocol.Commit
	for {
		m, err := t.sub.Receive(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		message, ok := m.(*redis.Message)
		if !ok || c.Decode(message.Payload) != nil {
			continue
		}
		t.mu.Lock()
		for _, r := range c.Records {
			t.times = append(t.times, now.Sub(r.Published))
		}
		t.mu.Unlock()
	}
}

func (t *timed) delays() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.times)
}

func (t *timed) close() {
	_ = t.sub.Close()
	<-t.ended
	_ = t.client.Close()
}
