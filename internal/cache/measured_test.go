package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"heavy-read-api/internal/test/redistest"
)

// Propagation is measured alike whatever the clocks of the hosts say, and is never negative. The embedded
// Redis has no TIME in scripts that only read; it runs on one host with its clients.
func TestPropagationWhenClocksDiffer(t *testing.T) {
	redistest.Require(t)
	for _, tt := range []struct{ writer, reader time.Duration }{ // how far they are ahead of Redis
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
			p := publisher(t, b.Addr())
			p.clock.now = func() time.Time { return stepped(t, time.Now(), tt.writer) }
			r, err := NewReplica(ReplicaConfig{Redis: nodes(t, b.Addr()), Logger: quiet(), Probe: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			r.applier.now = func() time.Time { return stepped(t, time.Now(), tt.reader) }
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
			// All of it lies within the time that this test took.
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

// The estimate stays within what is possible, gets better with better replies, and follows a clock that
// was set.
func TestMeasuredClock(t *testing.T) {
	c := newMeasuredClock()
	at := func(d time.Duration) time.Time { return c.base.Add(d) }
	if got := c.now(at(time.Second)); !got.Equal(at(time.Second)) {
		t.Errorf("before the first reply: %v, want the local time", got)
	}
	ahead := time.Hour // of Redis
	reply := func(sent, server, received time.Duration) {
		c.observe(at(sent), at(received), at(server+ahead).UnixMicro())
	}
	off := func(local, want time.Duration) {
		t.Helper()
		got := c.now(at(local)).Sub(at(local).Add(ahead).Round(0))
		if got = got.Abs(); got > want {
			t.Errorf("off by %v, want at most %v", got, want)
		}
	}
	const ms = time.Millisecond
	reply(0, 10*ms, 100*ms) // a reply that took 90 ms to come back
	off(100*ms, 50*ms)
	reply(200*ms, 202*ms, 202*ms)
	off(202*ms, 2*ms)
	reply(300*ms, 300*ms, 390*ms) // a slow reply takes nothing away
	off(400*ms, 2*ms)
	reply(500*ms, 509*ms, 510*ms) // and a slow request nothing either
	off(510*ms, 2*ms)
	for _, step := range []time.Duration{-2 * time.Hour, 3 * time.Hour, -time.Second} {
		ahead += step
		reply(600*ms, 601*ms, 602*ms)
		off(602*ms, 2*ms)
	}
	// Two clocks that drift apart by 50 us a second.
	for s := time.Second; s < 100*time.Second; s += time.Second {
		ahead += 50 * time.Microsecond
		reply(s, s+ms/2, s+ms)
		off(s+ms, 2*ms)
	}
	if width := c.high - c.low; width <= 0 || width > 3*ms {
		t.Errorf("bounds %v apart", width)
	}
}
