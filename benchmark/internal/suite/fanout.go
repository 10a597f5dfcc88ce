package suite

import (
	"context"
	"errors"
	"fmt"

	"heavy-read-api/benchmark/internal/fanout"
	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/internal/post"
)

const (
	fanoutRelays  = 2 // Redis replicas in the tier
	fanoutReaders = 2 // real readers among the subscribers
)

// fanout measures what a write costs Redis by the number of its subscribers, first without relays and then with them.
func (s *suite) fanout(ctx context.Context) error {
	u, err := s.own.lab.Upstream(ctx, "")
	if errors.Is(err, lab.ErrNoRedis) {
		s.note("The fan-out of Redis was not measured: %v.", err)
		return nil
	}
	started := []*lab.Process{u.Redis, u.Writer}
	defer func() { stop(started) }()
	if err != nil {
		return err
	}
	posts := min(s.posts, updatedPosts)
	if err := importPosts(ctx, u.Writer.Addr, "", posts, func(rank int) post.Post { return s.mix.Post(rank, 0) }); err != nil {
		return err
	}
	result := &report.Fanout{Readers: fanoutReaders}
	for _, relays := range []int{0, fanoutRelays} {
		var tier []*lab.Upstream
		for range relays {
			r, err := s.own.lab.Relay(ctx, u)
			started = append(started, r.Redis)
			if err != nil {
				return err
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
				return err
			}
		}
		for _, rate := range s.fanoutRates {
			for _, n := range s.subscribers {
				point := report.FanoutPoint{Rate: rate, Subscribers: n, Relays: relays}
				s.progress.Step(fmt.Sprintf("%d writes/s to %d subscribers of %d relays", rate, n, relays), s.plan.fanout)
				m, err := fanout.Measure(ctx, fanout.Config{Upstream: u, Relays: tier, Subscribers: n - fanoutReaders, Posts: posts, Rate: rate, Duration: s.plan.fanout})
				if err != nil {
					return fmt.Errorf("%d writes/s to %d subscribers of %d relays: %w", rate, n, relays, err)
				}
				point.Reached = float64(m.Writes) / max(m.Took.Seconds(), s.plan.fanout.Seconds())
				point.Primary, point.Relay, point.Delay = m.Primary.Seconds(), m.Relay.Seconds(), report.NewQuantiles(m.Delays)
				result.Points = append(result.Points, point)
				s.progress.Say("%5d writes/s to %3d subscribers, %d relays: %s of the primary and %s of a relay a write; delivered after p50 %s, p99 %s",
					rate, n, relays, report.Seconds(point.Primary), report.Seconds(point.Relay), report.Seconds(point.Delay.P50), report.Seconds(point.Delay.P99))
			}
		}
		stop(readers)
	}
	s.report.Fanout = result
	return nil
}

// stop stops processes, the last one first. It ignores those that were not started or have been stopped.
func stop(processes []*lab.Process) {
	for i := range processes {
		if p := processes[len(processes)-1-i]; p != nil {
			p.Stop()
		}
	}
}
