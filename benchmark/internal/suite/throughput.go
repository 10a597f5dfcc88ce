package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
)

// lane is a closed loop and the CPU time of the servers that it passes.
type lane struct {
	name, via string
	closed    load.Closed
	cpu       func(context.Context) (time.Duration, bool)
	wrk       *load.Wrk                                  // nil means the one that the lanes share
	meanwhile func(context.Context, time.Duration) error // runs during the closed loop; may be nil
}

// stdHeader makes the fast lane pass a request to net/http. It has no effect on a request without a body.
const stdHeader = "Expect: 100-continue"

func (s *suite) direct(name, path string, depth int) lane {
	return lane{name: name, via: report.ViaDirect, closed: s.closed(s.addresses.Direct, path, depth), cpu: s.cpu(s.addresses.Direct + "/metrics")}
}

func (s *suite) std(depth int) lane {
	l := s.direct(report.LaneStd, "/post", depth)
	l.closed.Header = stdHeader
	return l
}

// cpu returns a function that adds up the CPU time that the metrics of several processes report. ok is false when
// one of them does not export it.
func (s *suite) cpu(metrics ...string) func(context.Context) (time.Duration, bool) {
	return func(ctx context.Context) (sum time.Duration, ok bool) {
		for _, m := range metrics {
			u, err := target.ProcessUsage(ctx, "http://"+m)
			if err != nil {
				return 0, false
			}
			sum += u.CPU
		}
		return sum, true
	}
}

func (s *suite) throughput(ctx context.Context) error {
	readers, err := s.runtime.Readers(ctx)
	if err != nil {
		return err
	}
	metrics := []string{s.addresses.GatewayMetrics + "/apisix/prometheus/metrics"}
	for _, r := range readers {
		metrics = append(metrics, r.Addr+"/metrics")
	}
	gateway := func(name, path string) lane {
		return lane{name: name, via: report.ViaGateway, closed: s.closed(s.addresses.Gateway, path, 1), cpu: s.cpu(metrics...)}
	}
	lanes := []lane{
		s.direct(report.LaneFast, "/post", 1),
		s.std(1),
		s.direct(report.LaneMarshal, "/post-marshal", 1),
		s.direct(report.LaneRedis, "/post-redis", 1),
		gateway(report.LaneFast, "/post"),
		gateway(report.LaneMarshal, "/post-marshal"),
		gateway(report.LaneRedis, "/post-redis"),
	}
	s.report.Throughput, err = s.lanes(ctx, s.wrk, s.withNginx(ctx, lanes, 1))
	return err
}

// depth is the number of requests in flight on each connection when they are pipelined.
const depth = 16

func (s *suite) pipelining(ctx context.Context) error {
	lanes := []lane{s.direct(report.LaneFast, "/post", depth), s.std(depth)}
	var err error
	s.report.Pipelined, err = s.lanes(ctx, s.wrk, s.withNginx(ctx, lanes, depth))
	return err
}

// withNginx inserts nginx, if it is installed, after the two lanes of the reader.
func (s *suite) withNginx(ctx context.Context, lanes []lane, depth int) []lane {
	nginx, err := s.nginx(ctx)
	if err != nil {
		return lanes
	}
	closed := s.closed(nginx.Addr, "/post", depth)
	closed.Check = nginx.check
	return slices.Insert(lanes, 2, lane{name: report.LaneNginx, via: report.ViaDirect, closed: closed, cpu: processCPU(nginx.Process)})
}

// processCPU returns the cpu function of a lane that a process of the lab serves.
func processCPU(p *lab.Process) func(context.Context) (time.Duration, bool) {
	return func(context.Context) (time.Duration, bool) { return p.CPU() }
}

// lanes measures every lane in each round, so that a change in the speed of the machine affects all of them. When
// ctx is canceled after the first round, lanes returns the values so far with the error.
func (s *suite) lanes(ctx context.Context, wrk *load.Wrk, lanes []lane) ([]report.Lane, error) {
	results := make([]report.Lane, len(lanes))
	for i, l := range lanes {
		results[i] = report.Lane{Name: l.name, Via: l.via, Depth: l.closed.Depth}
	}
	for round := range s.rounds {
		for i, l := range lanes {
			s.progress.Step(fmt.Sprintf("round %d of %d: %s, %s", round+1, s.rounds, l.name, l.via), l.closed.Duration)
			if err := s.measure(ctx, cmp.Or(l.wrk, wrk), l, &results[i]); err != nil {
				if round == 0 || !errors.Is(err, context.Canceled) {
					return nil, err
				}
				return results, err
			}
		}
	}
	for _, r := range results {
		s.progress.Say("%-34s %-8s %9s requests/s", r.Name, r.Via, report.Thousands(report.Median(r.Rates)))
	}
	return results, nil
}

func (s *suite) measure(ctx context.Context, wrk *load.Wrk, l lane, into *report.Lane) error {
	before, known := l.cpu(ctx)
	var meanwhile errgroup.Group
	if l.meanwhile != nil {
		meanwhile.Go(func() error { return l.meanwhile(ctx, l.closed.Duration) })
	}
	r, err := wrk.Run(ctx, l.closed)
	if err := errors.Join(err, meanwhile.Wait()); err != nil {
		return err
	}
	after, ok := l.cpu(ctx)
	into.Rates = append(into.Rates, r.Rate())
	q := report.NewQuantiles(r.Latencies)
	into.P50 = append(into.P50, q.P50)
	into.P99 = append(into.P99, q.P99)
	into.ClientCPU = append(into.ClientCPU, r.CPU.Seconds()/r.Seconds)
	if known && ok {
		into.CPU = append(into.CPU, (after-before).Seconds()/float64(r.Requests))
	}
	return nil
}
