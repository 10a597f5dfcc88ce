package suite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/fanout"
	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

const (
	fanoutRelays  = 2 // Redis replicas in the tier
	fanoutReaders = 2 // real readers among the subscribers

	capacityPosts = 1000 // number of posts that are written while the capacity is measured
)

// fanout measures what a write costs Redis by the number of its subscribers, and how many writes Redis delivers. The second
// comes last and on another Redis: its writes leave so much to be written to the disk that flushes take longer afterwards.
func (s *suite) fanout(ctx context.Context) (err error) {
	result := &report.Fanout{Readers: fanoutReaders}
	if result.Points, err = s.fanoutPoints(ctx); err == nil {
		result.Capacity, err = s.capacity(ctx)
	}
	if errors.Is(err, lab.ErrNoRedis) {
		s.note("The fan-out of Redis was not measured: %v.", err)
		return nil
	}
	if err != nil {
		return err
	}
	s.report.Fanout = result
	return nil
}

// fanoutPoints measures constant rates, first without relays and then with them.
func (s *suite) fanoutPoints(ctx context.Context) (points []report.FanoutPoint, err error) {
	u, err := s.own.lab.Upstream(ctx, "")
	started := []*lab.Process{u.Redis, u.Writer}
	defer func() { stop(started) }()
	if err != nil {
		return nil, err
	}
	posts := min(s.posts, updatedPosts)
	if err := importPosts(ctx, u.Writer.Addr, "", posts, func(rank int) post.Post { return s.mix.Post(rank, 0) }); err != nil {
		return nil, err
	}
	measure := func(rate, n int, tier []*lab.Upstream, readers int) error {
		what := fmt.Sprintf("%d writes/s to %d subscribers, %d relays", rate, n, len(tier))
		s.progress.Step(what, s.plan.fanout)
		m, err := fanout.Measure(ctx, fanout.Config{Upstream: u, Relays: tier, Subscribers: n - readers, Posts: posts, Rate: rate, Duration: s.plan.fanout})
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		p := report.FanoutPoint{
			Rate: rate, Reached: float64(m.Writes) / max(m.Took.Seconds(), s.plan.fanout.Seconds()), Subscribers: n, Relays: len(tier),
			Primary: m.Primary.Seconds(), Relay: m.Relay.Seconds(), Delay: report.NewQuantiles(m.Delays),
		}
		points = append(points, p)
		s.progress.Say("%s: %s of the primary and %s of a relay a write; delivered after p50 %s, p99 %s",
			what, report.Seconds(p.Primary), report.Seconds(p.Relay), report.Seconds(p.Delay.P50), report.Seconds(p.Delay.P99))
		return nil
	}
	for _, rate := range s.fanoutRates {
		if err := measure(rate, 0, nil, 0); err != nil {
			return nil, err
		}
	}
	for _, relays := range []int{0, fanoutRelays} {
		var tier []*lab.Upstream
		for range relays {
			r, err := s.own.lab.Relay(ctx, u)
			started = append(started, r.Redis)
			if err != nil {
				return nil, err
			}
			tier = append(tier, r)
		}
		sources := tier
		if len(sources) == 0 {
			sources = []*lab.Upstream{u}
		}
		var readers []*lab.Process
		for i := range fanoutReaders {
			r, err := s.own.lab.Reader(ctx, sources[i%len(sources)], "", false)
			readers = append(readers, r)
			started = append(started, r)
			if err != nil {
				return nil, err
			}
		}
		for _, rate := range s.fanoutRates {
			for _, n := range s.subscribers {
				if err := measure(rate, n, tier, fanoutReaders); err != nil {
					return nil, err
				}
			}
		}
		stop(readers)
	}
	return points, nil
}

// capacity measures how many writes one Redis delivers, on a core of its own if the machine has at least two.
func (s *suite) capacity(ctx context.Context) (_ *report.Capacity, err error) {
	u, err := s.own.lab.Upstream(ctx, "")
	defer stop([]*lab.Process{u.Redis, u.Writer})
	if err != nil {
		return nil, err
	}
	cores, pinned := s.own.lab.SeparateCores()
	c := &report.Capacity{Pinned: pinned, Server: cores.Server, Clients: cores.Clients, InFlight: fanout.InFlight}
	if pinned {
		if err := errors.Join(u.Redis.Pin(ctx, cores.Server), u.Writer.Pin(ctx, cores.Clients), s.own.lab.Pin(ctx, cores.Clients)); err != nil {
			return nil, err
		}
		defer s.restore(ctx, &err, "move the benchmark back to all cores", func(ctx context.Context) error { return s.own.lab.Pin(ctx, "") })
	}
	if err := u.Flush(ctx, "everysec"); err != nil {
		return nil, err
	}
	writes := make([]protocol.Write, min(s.posts, capacityPosts))
	for i := range writes {
		value := s.mix.Post(i, 1).Encode(time.Now())
		writes[i] = protocol.Write{Op: protocol.Set, Key: workload.MixID(i), Value: value.Body, Tag: value.Sum}
		c.Bytes += float64(len(value.Body)) / float64(len(writes))
	}
	for _, n := range s.audiences {
		point := report.CapacityPoint{Subscribers: n}
		for _, load := range []struct {
			what string
			into *report.CapacityLoad
			rate int
		}{{"as many writes as Redis takes", &point.Full, 0}, {fmt.Sprintf("%.0f %% of them", 100*report.CapacityShare), &point.Part, 1}} {
			what := fmt.Sprintf("%s, %d subscribers", load.what, n)
			if load.rate > 0 {
				load.rate = max(1, int(report.CapacityShare*point.Full.Rate))
			}
			s.progress.Step(what, s.plan.capacity)
			m, err := fanout.Capacity(ctx, fanout.CapacityConfig{Redis: u.Redis, Writes: writes, Subscribers: n, Rate: load.rate, Duration: s.plan.capacity})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			*load.into = report.CapacityLoad{
				Rate: float64(m.Writes) / m.Took.Seconds(), Core: m.CPU.Seconds() / m.Took.Seconds(), Busy: (m.CPU + m.Wait).Seconds() / m.Took.Seconds(),
				CPU: m.CPU.Seconds() / float64(max(m.Writes, 1)), Delay: report.NewQuantiles(m.Delays),
			}
			s.progress.Say("%s: %s writes/s, %s of CPU a write, %.0f %% of a core, %.0f %% busy; delivered after p50 %s, p99 %s", what,
				report.Thousands(load.into.Rate), report.Seconds(load.into.CPU), 100*load.into.Core, 100*load.into.Busy, report.Seconds(load.into.Delay.P50), report.Seconds(load.into.Delay.P99))
		}
		c.Points = append(c.Points, point)
	}
	return c, nil
}

// stop stops processes, the last one first. It ignores those that were not started or have been stopped.
func stop(processes []*lab.Process) {
	for i := range processes {
		if p := processes[len(processes)-1-i]; p != nil {
			p.Stop()
		}
	}
}
