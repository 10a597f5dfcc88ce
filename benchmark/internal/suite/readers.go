package suite

import (
	"context"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// readers kills a reader and adds another one while reads go through the gateway.
func (s *suite) readers(ctx context.Context) (err error) {
	readers, err := s.runtime.Readers(ctx)
	if err != nil {
		return err
	}
	n := len(readers)
	if n < 2 {
		s.note("No reader was killed: with %d behind the gateway, no other reader could take over.", n)
		return nil
	}
	defer s.restore(ctx, &err, fmt.Sprintf("scale back to %d readers", n), func(ctx context.Context) error {
		now, err := s.runtime.Readers(ctx)
		if err != nil || len(now) == n {
			return err
		}
		return s.runtime.Scale(ctx, n)
	})
	var killed, back, added time.Time
	result, err := s.underReads(ctx, faultLimit, true, func(ctx context.Context) (err error) {
		s.progress.Step("killing "+readers[0].Name, 5*time.Second)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		killed = time.Now()
		revive, err := s.runtime.Kill(ctx, readers[0].Name)
		if err != nil {
			return err
		}
		defer s.restore(ctx, &err, "start "+readers[0].Name+" again", revive)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		if err := revive(ctx); err != nil {
			return err
		}
		if err := s.awaitSync(ctx); err != nil {
			return err
		}
		back = time.Now()
		if err := s.awaitSpread(ctx, n); err != nil {
			return err
		}
		s.progress.Step("adding a reader", 5*time.Second)
		added = time.Now()
		if err := s.runtime.Scale(ctx, n+1); err != nil {
			return err
		}
		if err := s.awaitSync(ctx); err != nil {
			return err
		}
		return s.awaitSpread(ctx, n+1)
	})
	if err != nil {
		return err
	}
	s.progress.Step("removing the added reader", 5*time.Second)
	f := &report.ReaderFault{
		Rate: s.rate, Requests: len(result.Late), Failed: len(result.Failed), Failures: result.Failures, Readers: n,
		KilledAt: killed.Sub(result.Began).Seconds(), AddedAt: added.Sub(result.Began).Seconds(),
		KillBalance: -1, AddBalance: -1, Latency: report.NewQuantiles(result.Latencies),
	}
	f.Timeline = report.NewTimeline(result,
		report.Event{At: f.KilledAt, Name: readers[0].Name + " is killed", Fault: true},
		report.Event{At: back.Sub(result.Began).Seconds(), Name: "it is ready again"},
		report.Event{At: f.AddedAt, Name: "a reader is added"})
	addedAt := added.Sub(result.Began)
	var before []measure.Served
	for _, a := range result.Served {
		if a.At < addedAt {
			before = append(before, a)
		}
	}
	if at, ok := measure.Balanced(before, killed.Sub(result.Began), balanceWindow, n); ok {
		f.KillBalance = at.Seconds()
	}
	if at, ok := measure.Balanced(result.Served, addedAt, balanceWindow, n+1); ok {
		f.AddBalance = at.Seconds()
	}
	s.report.Readers = f
	s.progress.Say("%d of %d reads failed; balanced %.1f s after the kill, and %.1f s after a reader was added", f.Failed, f.Requests, f.KillBalance, f.AddBalance)
	return nil
}

// awaitSpread waits until n readers answer through the gateway, and then a little longer. A timeout is a result, not
// an error.
func (s *suite) awaitSpread(ctx context.Context, n int) error {
	err := poll(ctx, spreadLimit, func() error {
		_, err := s.request(ctx, s.addresses.Gateway, func(c *wire.Conn) (a wire.Answer, err error) {
			seen := map[string]bool{}
			for range 10 * n {
				if a, err = c.Get("/post?id="+workload.MixID(0), ""); err != nil {
					return a, err
				}
				seen[a.Header.Get("X-Served-By")] = true
			}
			if len(seen) < n {
				err = fmt.Errorf("%d of %d readers answer", len(seen), n)
			}
			return a, err
		})
		return err
	})
	if err != nil {
		s.progress.Say("after %v only %v", spreadLimit, err)
	}
	return wait(ctx, 2*s.settle)
}
