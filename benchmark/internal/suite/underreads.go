package suite

import (
	"context"
	"errors"
	"time"

	"heavy-read-api/benchmark/internal/load"
)

// underReads runs work while reads go through the gateway at a constant rate. The reads end with the work, or
// after limit. With mayFail failed reads are counted; otherwise the first one ends both. underReads returns the
// result of the reads.
func (s *suite) underReads(ctx context.Context, limit time.Duration, mayFail bool, work func(context.Context) error) (*load.SteadyResult, error) {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()
	var result *load.SteadyResult
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, failed = s.atRate(s.addresses.Gateway, s.rate, limit).Run(reading, s.reads, s.ranks, &s.counts, mayFail)
		if failed != nil && !errors.Is(failed, context.Canceled) {
			stopWorking()
		}
	}()
	err := work(working)
	stopReading()
	<-done
	if failed != nil && !errors.Is(failed, context.Canceled) {
		return nil, failed // the error that stopped the work
	}
	return result, err
}
