package suite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/outage"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
)

// failover kills the primary, and then performs a planned failover, while posts are read and written.
func (s *suite) failover(ctx context.Context) error {
	if _, err := s.runtime.Primary(ctx); errors.Is(err, target.ErrNoFailover) {
		s.note("No failover was measured: %v.", err)
		return nil
	}
	for range s.failovers {
		for _, planned := range []bool{false, true} {
			if err := s.replacePrimary(ctx, planned); err != nil {
				return err
			}
		}
	}
	return nil
}

// primary waits until Redis is ready for a failover and returns the name of the primary.
func (s *suite) primary(ctx context.Context) (name string, err error) {
	err = poll(ctx, readyLimit, func() (err error) {
		name, err = s.runtime.Primary(ctx)
		return err
	})
	return name, err
}

// replacePrimary performs and measures one failover.
func (s *suite) replacePrimary(ctx context.Context, planned bool) error {
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return err
	}
	f := report.Failover{Planned: planned, Rate: s.rate, WriteRate: failoverWrites}
	if f.From, err = s.primary(ctx); err != nil {
		return fmt.Errorf("wait until Redis is ready for a failover: %w", err)
	}
	result, err := s.underReads(ctx, faultLimit, true, func(ctx context.Context) (err error) {
		w := outage.Start(ctx, outage.Config{
			Writer: s.addresses.Writer, Header: s.addresses.Authorization(), Readers: addrs,
			Rate: failoverWrites, Mix: s.mix, Counts: &s.counts,
		})
		defer s.restore(ctx, &err, "delete the posts that were written", w.Clean)
		defer w.Stop()
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		if err := s.replace(ctx, f.From, planned, w); err != nil {
			return err
		}
		if f.To, err = s.primary(ctx); err != nil {
			return fmt.Errorf("wait until %s is back: %w", f.From, err)
		}
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		w.Stop()
		if err := s.awaitSync(ctx); err != nil {
			return err
		}
		cost, err := w.Result(ctx)
		f.Out, f.InSync = cost.Out.Seconds(), cost.InSync.Seconds()
		f.Acknowledged, f.Refused, f.Lost = cost.Acknowledged, cost.Refused, cost.Lost
		return err
	})
	if err != nil {
		return err
	}
	f.Requests, f.Failed, f.Failures, f.Latency = len(result.Late), len(result.Failed), result.Failures, report.NewQuantiles(result.Latencies)
	s.report.Failovers = append(s.report.Failovers, f)
	s.progress.Say("%s: from %s to %s: no write for %.2f s, readers in sync after %.2f s; %d of %d acknowledged writes lost, %d of %d reads failed",
		f.Name(), f.From, f.To, f.Out, f.InSync, f.Lost, f.Acknowledged, f.Failed, f.Requests)
	return nil
}

// replace makes a server other than old the primary, and blocks until all readers serve its writes.
func (s *suite) replace(ctx context.Context, old string, planned bool, w *outage.Writes) (err error) {
	s.progress.Step("replacing "+old, 10*time.Second)
	w.Fault()
	if planned {
		err = s.runtime.Failover(ctx)
	} else {
		var revive func(context.Context) error
		if revive, err = s.runtime.Kill(ctx, old); err == nil {
			defer s.restore(ctx, &err, "start "+old+" again", revive)
		}
	}
	if err != nil {
		return err
	}
	replaced := time.Now() // the old primary acknowledges no write that is sent from now on
	err = poll(ctx, readyLimit, func() error { return w.Recovered(replaced) })
	if err != nil {
		return fmt.Errorf("wait for the readers: %w", err)
	}
	return nil
}
