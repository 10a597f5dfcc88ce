package suite

import (
	"context"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/propagation"
	"heavy-read-api/benchmark/internal/report"
)

// writeRates are the writes a second at which propagation is measured.
var writeRates = []int{10, 200, 1000}

const (
	floorRate = 200 // messages a second
	cdfPoints = 400
	patience  = 30 * time.Second // bound of the reads beside writes that are late
)

// propagation measures how long writes take to be visible while reads run.
func (s *suite) propagation(ctx context.Context) error {
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return err
	}
	for _, rate := range writeRates {
		s.progress.Step(fmt.Sprintf("%d writes/s beside %d reads/s", rate, s.rate), s.plan.propagation)
		var r *propagation.Result
		_, err := s.underReads(ctx, 2*s.plan.propagation+patience, false, func(ctx context.Context) error {
			var err error
			r, err = propagation.Measure(ctx, propagation.Config{
				Writer: s.addresses.Writer, Header: s.addresses.Authorization(), Readers: addrs,
				Rate: rate, Duration: s.plan.propagation, Mix: s.mix, Counts: &s.counts,
			})
			return err
		})
		if err != nil {
			return err
		}
		result := report.Propagation{
			Rate: rate, Reached: r.Rate, Readers: len(addrs), Reads: s.rate,
			Everywhere: report.NewQuantiles(r.Everywhere), First: report.NewQuantiles(r.First), Resolution: report.NewQuantiles(r.Resolution),
			CDF: cdf(r.Everywhere),
		}
		s.report.Propagation = append(s.report.Propagation, result)
		s.progress.Say("%7d writes/s: on every reader after p50 %s, p99 %s", rate, report.Seconds(result.Everywhere.P50), report.Seconds(result.Everywhere.P99))
	}
	return s.floor(ctx)
}

func cdf(sorted []time.Duration) []measure.Point {
	points := measure.CDF(sorted, cdfPoints)
	for i := range points {
		points[i].Value /= float64(time.Second)
	}
	return points
}

// floor measures Redis alone, where it can be reached.
func (s *suite) floor(ctx context.Context) error {
	s.progress.Step("Redis alone", s.plan.floor)
	options, err := s.redisOptions(ctx)
	if err != nil {
		s.note("Redis alone does not stand beside us: %v.", err)
		return nil
	}
	size := int(s.report.Workload.MeanBytes)
	times, err := propagation.Floor(ctx, options, size, floorRate, s.plan.floor)
	if ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		s.note("Redis alone does not stand beside us: %v.", err)
		return nil
	}
	s.report.Floor = &report.Floor{Rate: floorRate, Bytes: size, Quantiles: report.NewQuantiles(times), CDF: cdf(times)}
	s.progress.Say("Redis alone: p50 %s, p99 %s", report.Seconds(s.report.Floor.P50), report.Seconds(s.report.Floor.P99))
	return nil
}
