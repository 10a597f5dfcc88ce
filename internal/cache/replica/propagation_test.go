package replica

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/test/clocktest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// The measured propagation does not depend on the clocks of the hosts, and is never negative. The embedded Redis has no TIME
// in read-only scripts.
func TestPropagationWhenClocksDiffer(t *testing.T) {
	redistest.Require(t)
	for _, tt := range []struct{ writer, reader time.Duration }{ // time by which they are ahead of Redis
		{0, 0},
		{4 * time.Second, 0},
		{-4 * time.Second, 0},
		{0, time.Hour},
		{0, -time.Hour},
		{time.Hour, -time.Hour},
		{24 * time.Hour, 24 * time.Hour},
		{-24 * time.Hour, -24 * time.Hour},
	} {
		t.Run(fmt.Sprintf("writer %v, reader %v", tt.writer, tt.reader), func(t *testing.T) {
			b := redistest.Start(t)
			p, err := publisher.New(publisher.Config{Redis: nodetest.New(t, b.Addr()), Now: func() time.Time { return clocktest.Step(t, time.Now(), tt.writer) }})
			if err != nil {
				t.Fatal(err)
			}
			r, err := New(Config{Redis: nodetest.New(t, b.Addr()), Logger: quiet(), Probe: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			r.turns.take(func(a *applier) { a.now = func() time.Time { return clocktest.Step(t, time.Now(), tt.reader) } })
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { r.Run(ctx) })
			defer r.Close()
			defer running.Wait()
			defer cancel()
			ready(t, r)
			const writes = 50
			began := time.Now()
			for i := range writes {
				reached(t, r, write(t, p, set("a", fmt.Sprint(i)))[0].Token)
			}
			took := time.Since(began)
			h := propagation(t, r)
			if h.GetSampleCount() == 0 {
				t.Fatal("nothing was measured")
			}
			// Propagation cannot take longer than the test.
			if sum := h.GetSampleSum(); sum <= 0 || sum > took.Seconds() {
				t.Errorf("%d writes took %v, of which %v s were propagation", writes, took, sum)
			}
		})
	}
}

func propagation(t *testing.T, r *Replica) *dto.Histogram {
	t.Helper()
	var m dto.Metric
	if err := r.metrics.propagation.(prometheus.Metric).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetHistogram()
}
