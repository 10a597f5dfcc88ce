package suite

import (
	"context"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/report"
)

// shares of the maximum at which latency is measured.
var shares = []float64{0.1, 0.5, 0.8}

// latency measures reads at a constant rate, past the gateway and through it.
func (s *suite) latency(ctx context.Context) error {
	for _, way := range []struct{ via, addr string }{{report.ViaDirect, s.addresses.Direct}, {report.ViaGateway, s.addresses.Gateway}} {
		wanted := []report.Steady{{Rate: s.rate}}
		if !s.rateGiven {
			highest, err := s.highest(ctx, way.via, way.addr)
			if err != nil {
				return err
			}
			wanted = nil
			for _, share := range shares {
				wanted = append(wanted, report.Steady{Share: share, Max: highest, Rate: max(1, int(share*highest))})
			}
		}
		for _, result := range wanted {
			result.Via, result.Sustained = way.via, true
			err := s.roundsAtRate(ctx, way.addr, &result)
			if len(result.P50) > 0 {
				s.report.Latency = append(s.report.Latency, result)
			}
			if err != nil {
				return err
			}
			if result.Sustained {
				s.progress.Say("%-8s %7d reads/s: p50 %s, p99 %s", way.via, result.Rate, report.Seconds(report.Median(result.P50)), report.Seconds(report.Median(result.P99)))
			} else {
				s.progress.Say("%-8s %7d reads/s: not sustained, %.0f/s were sent", way.via, result.Rate, result.Reached)
			}
		}
	}
	return nil
}

// highest returns the closed-loop rate: of the part that measures it, or of one round.
func (s *suite) highest(ctx context.Context, via, addr string) (float64, error) {
	for _, l := range s.report.Throughput {
		if l.Via == via && l.Name == report.LaneFast {
			return report.Median(l.Rates), nil
		}
	}
	s.progress.Step("the highest rate, "+via, s.round)
	r, err := s.wrk.Run(ctx, s.closed(addr, "/post", 1))
	return r.Rate(), err
}

func (s *suite) roundsAtRate(ctx context.Context, addr string, result *report.Steady) error {
	for round := range s.steadyRounds {
		s.progress.Step(fmt.Sprintf("round %d of %d: %s at %d reads/s", round+1, s.steadyRounds, result.Via, result.Rate), s.steady)
		cpu := ownCPU()
		began := time.Now()
		r, err := s.atRate(addr, result.Rate, s.steady).Run(ctx, s.reads, s.ranks, &s.counts, false)
		if err != nil {
			return err
		}
		used := (ownCPU() - cpu).Seconds() / time.Since(began).Seconds()
		q := report.NewQuantiles(r.Latencies)
		result.P50 = append(result.P50, q.P50)
		result.P90 = append(result.P90, q.P90)
		result.P99 = append(result.P99, q.P99)
		result.P999 = append(result.P999, q.P999)
		result.Late = max(result.Late, measure.Quantile(r.Late, 0.99).Seconds())
		result.ClientCPU = max(result.ClientCPU, used)
		if round == 0 || r.Rate < result.Reached {
			result.Reached = r.Rate
		}
		result.Sustained = result.Sustained && r.Sustained(result.Rate)
	}
	return nil
}

func (s *suite) atRate(addr string, rate int, d time.Duration) load.Steady {
	return load.Steady{Addr: addr, Path: "/post", Rate: rate, Connections: s.connections, Duration: d}
}
