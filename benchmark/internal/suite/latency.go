package suite

import (
	"context"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/report"
)

const (
	leastReads = 50      // lowest rate that a search tries, in reads per second
	mostReads  = 500_000 // highest rate that a search tries
)

// latency measures reads at a constant rate, directly from one reader and through the gateway: at the reference
// rate, and at the highest rate whose p99 stays below the claimed bound.
func (s *suite) latency(ctx context.Context) error {
	s.report.Latency = nil
	for _, way := range []struct{ via, addr string }{{report.ViaDirect, s.addresses.Direct}, {report.ViaGateway, s.addresses.Gateway}} {
		rate := referenceRate
		if s.rateGiven {
			rate = s.rate
		}
		if _, err := s.steadyAt(ctx, way.via, way.addr, rate, false); err != nil {
			return err
		}
		if !s.rateGiven {
			if err := s.highestReads(ctx, way.via, way.addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// highestReads searches for the highest rate with short measurements and confirms it with whole rounds. A rate that
// is not confirmed is lowered by 15 % up to three times, and then halved, until one is confirmed.
func (s *suite) highestReads(ctx context.Context, via, addr string) error {
	rate, err := highest(referenceRate, leastReads, mostReads, func(rate int) (bool, error) {
		s.progress.Step(fmt.Sprintf("searching for the highest rate, %s: %d reads/s", via, rate), s.probe)
		r, err := s.atRate(addr, rate, s.probe).Run(ctx, s.reads, s.ranks, &s.counts, true)
		if err != nil {
			return false, err
		}
		p99 := measure.Quantile(r.Latencies, 0.99).Seconds()
		return len(r.Failed) == 0 && r.Sustained(rate) && p99 < report.ClaimedRead, nil
	})
	if err != nil {
		return err
	}
	for tries := 1; rate >= leastReads; tries++ {
		result, err := s.steadyAt(ctx, via, addr, rate, true)
		if err != nil || result.Holds() {
			return err
		}
		s.report.Latency = s.report.Latency[:len(s.report.Latency)-1]
		if tries <= 3 {
			rate = rate * 85 / 100
		} else {
			rate /= 2
		}
	}
	s.report.Latency = append(s.report.Latency, report.Steady{Via: via, Highest: true})
	return nil
}

// steadyAt measures the rounds at one rate and adds them to the report.
func (s *suite) steadyAt(ctx context.Context, via, addr string, rate int, highest bool) (report.Steady, error) {
	result := report.Steady{Via: via, Rate: rate, Highest: highest, Sustained: true}
	err := s.roundsAtRate(ctx, addr, &result)
	if len(result.P50) > 0 {
		s.report.Latency = append(s.report.Latency, result)
	}
	if err != nil {
		return result, err
	}
	if result.Sustained {
		s.progress.Say("%-8s %7d reads/s: p50 %s, p99 %s, p99.9 %s", via, rate,
			report.Seconds(report.Median(result.P50)), report.Seconds(report.Median(result.P99)), report.Seconds(report.Median(result.P999)))
	} else {
		s.progress.Say("%-8s %7d reads/s: not sustained, %.0f/s were sent", via, rate, result.Reached)
	}
	return result, nil
}

func (s *suite) roundsAtRate(ctx context.Context, addr string, result *report.Steady) error {
	for round := range s.steadyRounds {
		s.progress.Step(fmt.Sprintf("round %d of %d: %s at %d reads/s", round+1, s.steadyRounds, result.Via, result.Rate), s.steady)
		cpu := ownCPU()
		began := time.Now()
		// At a rate that is barely sustained, a short stall of the machine can make a request time out.
		r, err := s.atRate(addr, result.Rate, s.steady).Run(ctx, s.reads, s.ranks, &s.counts, result.Highest)
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
		result.Sustained = result.Sustained && r.Sustained(result.Rate) && len(r.Failed) == 0
	}
	return nil
}

func (s *suite) atRate(addr string, rate int, d time.Duration) load.Steady {
	return load.Steady{Addr: addr, Path: "/post", Rate: rate, Connections: s.connections, Duration: d}
}
