package suite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/propagation"
	"heavy-read-api/benchmark/internal/report"
)

// writeRates are the rates, in writes per second, whose distributions are reported.
var writeRates = []int{10, 200, 1000}

const (
	floorRate   = 200 // messages per second
	cdfPoints   = 400
	lateLimit   = 30 * time.Second // time by which late writes may prolong the reads
	leastWrites = 10               // lowest rate that a search tries, in writes per second
	mostWrites  = 32_000           // highest rate that a search tries
)

// propagation measures how long writes take to be visible on every reader while reads run.
func (s *suite) propagation(ctx context.Context) error {
	s.report.Propagation, s.report.HighestWrites, s.report.Floor = nil, nil, nil
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return err
	}
	p99 := map[int]float64{} // by rate, of the rates that were sustained
	for _, rate := range writeRates {
		s.progress.Step(fmt.Sprintf("%d writes/s during %d reads/s", rate, s.rate), s.plan.propagation)
		r, _, err := s.writeAt(ctx, addrs, rate, s.plan.propagation, false)
		if errors.Is(err, propagation.ErrRefused) {
			err = load.Wrong("at %d writes/s: %v", rate, err)
		}
		if err != nil {
			return err
		}
		result := report.Propagation{
			Rate: rate, Reached: r.Rate, Readers: len(addrs), Reads: s.rate,
			Everywhere: report.NewQuantiles(r.Everywhere), First: report.NewQuantiles(r.First), Resolution: report.NewQuantiles(r.Resolution),
			CDF: cdf(r.Everywhere),
		}
		s.report.Propagation = append(s.report.Propagation, result)
		if r.Sustained(rate) {
			p99[rate] = result.Everywhere.P99
		}
		s.progress.Say("%7d writes/s: on every reader after p50 %s, p99 %s", rate, report.Seconds(result.Everywhere.P50), report.Seconds(result.Everywhere.P99))
	}
	if err := s.floor(ctx); err != nil {
		return err
	}
	return s.highestWrites(ctx, addrs, p99)
}

// writeAt writes at a constant rate during reads. failed is the number of reads that failed; unless mayFail is set,
// the first one is an error.
func (s *suite) writeAt(ctx context.Context, addrs []string, rate int, d time.Duration, mayFail bool) (r *propagation.Result, failed int, err error) {
	reads, err := s.underReads(ctx, 2*d+lateLimit, mayFail, func(ctx context.Context) error {
		r, err = propagation.Measure(ctx, propagation.Config{
			Writer: s.addresses.Writer, Header: s.addresses.Authorization(), Readers: addrs,
			Rate: rate, Duration: d, Mix: s.mix, Counts: &s.counts,
		})
		return err
	})
	if reads != nil {
		failed = len(reads.Failed)
	}
	return r, failed, err
}

// highestWrites searches for the highest write rate whose p99 stays below each of the claimed bounds. It begins with p99, by
// rate, which was measured for longer than the search measures a rate, and adds to it: a rate that passed for one bound may
// pass for the other without another measurement.
func (s *suite) highestWrites(ctx context.Context, addrs []string, p99 map[int]float64) error {
	for _, bound := range report.ClaimedPropagation {
		rate, err := highest(writeRates[len(writeRates)-1], passed(p99, bound), mostWrites, func(rate int) (bool, error) {
			if known, ok := p99[rate]; ok && known < bound {
				return true, nil
			}
			s.progress.Step(fmt.Sprintf("searching for the highest write rate with p99 below %s: %d writes/s", report.Seconds(bound), rate), s.probe)
			r, failed, err := s.writeAt(ctx, addrs, rate, s.probe, true)
			if errors.Is(err, propagation.ErrRefused) {
				return false, nil
			} else if err != nil {
				return false, err
			}
			measured := measure.Quantile(r.Everywhere, 0.99).Seconds()
			if failed > 0 || !r.Sustained(rate) {
				return false, nil
			}
			p99[rate] = measured
			return measured < bound, nil
		})
		if err != nil {
			return err
		}
		s.report.HighestWrites = append(s.report.HighestWrites, report.HighestWrites{Bound: bound, Rate: rate, P99: p99[rate]})
		s.progress.Say("p99 below %s up to %d writes/s", report.Seconds(bound), rate)
	}
	return nil
}

// passed returns the highest rate whose known p99 is below bound, or leastWrites.
func passed(p99 map[int]float64, bound float64) int {
	rate := leastWrites
	for r, known := range p99 {
		if known < bound {
			rate = max(rate, r)
		}
	}
	return rate
}

func cdf(sorted []time.Duration) []measure.Point {
	points := measure.CDF(sorted, cdfPoints)
	for i := range points {
		points[i].Value /= float64(time.Second)
	}
	return points
}

// floor measures Redis Pub/Sub without the stack, if this machine can reach Redis.
func (s *suite) floor(ctx context.Context) error {
	s.progress.Step("Redis Pub/Sub only", s.plan.floor)
	options, err := s.redisOptions(ctx)
	if err != nil {
		s.note("Redis Pub/Sub without the stack was not measured: %v.", err)
		return nil
	}
	size := int(s.report.Workload.MeanBytes)
	times, err := propagation.Floor(ctx, options, size, floorRate, s.plan.floor)
	if ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		s.note("Redis Pub/Sub without the stack was not measured: %v.", err)
		return nil
	}
	s.report.Floor = &report.Floor{Rate: floorRate, Bytes: size, Quantiles: report.NewQuantiles(times), CDF: cdf(times)}
	s.progress.Say("Redis Pub/Sub only: p50 %s, p99 %s", report.Seconds(s.report.Floor.P50), report.Seconds(s.report.Floor.P99))
	return nil
}
