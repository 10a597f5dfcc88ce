package suite

import (
	"context"
	"errors"
	"time"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/updatecost"
	"heavy-read-api/internal/post"
)

// updatedPosts is the largest number of posts while the cost of updates is measured.
const updatedPosts = 10_000

// updateCost measures what an update costs each process and how soon it is visible.
func (s *suite) updateCost(ctx context.Context) error {
	u, err := s.own.lab.Upstream(ctx, "")
	if errors.Is(err, lab.ErrNoRedis) {
		s.note("The cost of an update was not measured: %v.", err)
		return nil
	}
	if u != nil && u.Redis != nil {
		defer u.Redis.Stop()
	}
	if err != nil {
		return err
	}
	defer u.Writer.Stop()
	posts := min(s.posts, updatedPosts)
	if err := importPosts(ctx, u.Writer.Addr, "", posts, func(rank int) post.Post { return s.mix.Post(rank, 0) }); err != nil {
		return err
	}
	reader, err := s.own.lab.Reader(ctx, u, "", false)
	if err != nil {
		return err
	}
	defer reader.Stop()
	cost := &report.UpdateCost{Rate: updatecost.Updates, Reads: updatecost.Reads}
	for range s.rounds {
		r, err := updatecost.Measure(ctx, updatecost.Config{
			Upstream: u, Reader: reader, Posts: posts, Duration: s.plan.floor, Mix: s.mix, Counts: &s.counts, Step: s.progress.Step,
		})
		if err != nil {
			return err
		}
		cost.Redis = append(cost.Redis, r.Redis.Seconds())
		cost.Writer = append(cost.Writer, r.Writer.Seconds())
		cost.Reader = append(cost.Reader, r.Reader.Seconds())
		cost.BesideRates = append(cost.BesideRates, r.BesideRate)
		for _, q := range []struct {
			into  *[]report.Quantiles
			times []time.Duration
		}{
			{&cost.Delivered, r.Delivered}, {&cost.Stored, r.Stored}, {&cost.Visible, r.Visible},
			{&cost.Beside, r.Beside}, {&cost.BesideReads, r.Reads},
		} {
			*q.into = append(*q.into, report.NewQuantiles(q.times))
		}
	}
	s.report.UpdateCost = cost
	s.progress.Say("CPU time of an update: Redis %s, writer %s, reader %s", report.Seconds(report.Median(cost.Redis)), report.Seconds(report.Median(cost.Writer)), report.Seconds(report.Median(cost.Reader)))
	return nil
}
