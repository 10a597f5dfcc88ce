// Package fanout measures what a write costs Redis by the number of its subscribers, with and without Redis replicas as
// relays.
package fanout

import (
	"context"
	"errors"
	"time"

	"heavy-read-api/benchmark/internal/lab"
)

// Config describes one measurement.
type Config struct {
	Upstream    *lab.Upstream
	Relays      []*lab.Upstream // Redis replicas that have the subscribers; without any, the primary has them
	Subscribers int             // at least 2, or 0
	Posts       int             // number of posts that exist
	Rate        int             // writes per second
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

// Measure writes at a constant rate to a writer while subscribers receive. Two of them are timed, the first and the last one
// on the first server; without subscribers there are no delays. A subscriber that does not receive every write is an error.
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
	a, err := newAudience(ctx, addrs, c.Subscribers)
	if err != nil {
		return nil, err
	}
	defer a.close()

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
	if err := a.delivered(ctx, r.Writes); err != nil {
		return nil, err
	}
	r.Delays = a.delays(make([]int, len(a.timed)), a.counts())
	return r, a.close()
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
