package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
)

// lane is what is asked, and whose CPU that costs.
type lane struct {
	name, via string
	closed    load.Closed
	cpu       func(context.Context) (time.Duration, bool)
}

// A request with an expectation is not for the fast lane: net/http answers it. Without a body it means nothing.
const stdHeader = "Expect: 100-continue"

func (s *suite) direct(name, path string, depth int) lane {
	return lane{name, report.ViaDirect, s.closed(s.addresses.Direct, path, depth), s.cpu(s.addresses.Direct + "/metrics")}
}

func (s *suite) std(depth int) lane {
	l := s.direct(report.LaneStd, "/post", depth)
	l.closed.Header = stdHeader
	return l
}

// cpu returns a function that adds up what some processes have used; it does not know when one of
// them does not tell.
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
		return lane{name, report.ViaGateway, s.closed(s.addresses.Gateway, path, 1), s.cpu(metrics...)}
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
	s.report.Throughput, err = s.lanes(ctx, s.withNginx(ctx, lanes, 1))
	return err
}

// depth is how many requests the pipelining part has in flight on each connection.
const depth = 16

func (s *suite) pipelining(ctx context.Context) error {
	lanes := []lane{s.direct(report.LaneFast, "/post", depth), s.std(depth)}
	var err error
	s.report.Pipelined, err = s.lanes(ctx, s.withNginx(ctx, lanes, depth))
	return err
}

// withNginx puts the peer behind our two lanes, where there is one.
func (s *suite) withNginx(ctx context.Context, lanes []lane, depth int) []lane {
	nginx, err := s.peer.nginx(ctx, s)
	if err != nil {
		if !s.peer.told {
			s.note("nginx does not stand beside us: %v.", err)
			s.peer.told = true
		}
		return lanes
	}
	closed := s.closed(nginx.Addr, "/post", depth)
	closed.Check = func(_, status int, body []byte) error { // whatever is asked for
		if status != http.StatusOK || string(body) != nginx.Body {
			return load.Wrong("nginx answers %d, %.100q", status, body)
		}
		return nil
	}
	return slices.Insert(lanes, 2, lane{report.LaneNginx, report.ViaDirect, closed, func(context.Context) (time.Duration, bool) { return nginx.CPU() }})
}

// lanes measures every lane in each round, so that what changes on the machine changes for all. What
// was measured before ctx ended is returned with the error, if it is a whole round.
func (s *suite) lanes(ctx context.Context, lanes []lane) ([]report.Lane, error) {
	results := make([]report.Lane, len(lanes))
	for i, l := range lanes {
		results[i] = report.Lane{Name: l.name, Via: l.via, Depth: l.closed.Depth}
	}
	for round := range s.rounds {
		for i, l := range lanes {
			s.progress.Step(fmt.Sprintf("round %d of %d: %s, %s", round+1, s.rounds, l.name, l.via), s.round)
			if err := s.measure(ctx, l, &results[i]); err != nil {
				if round == 0 || !errors.Is(err, context.Canceled) {
					return nil, err
				}
				return results, err
			}
		}
	}
	for _, r := range results {
		s.progress.Say("%-22s %-8s %s requests/s", r.Name, r.Via, report.Thousands(report.Median(r.Rates)))
	}
	return results, nil
}

func (s *suite) measure(ctx context.Context, l lane, into *report.Lane) error {
	before, known := l.cpu(ctx)
	r, err := s.wrk.Run(ctx, l.closed)
	if err != nil {
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
