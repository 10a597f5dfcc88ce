package clock

import (
	"testing"
	"time"
)

// The estimate stays within its bounds, improves with faster replies, and follows a clock that was set.
func TestEstimate(t *testing.T) {
	c := New()
	at := func(d time.Duration) time.Time { return c.base.Add(d) }
	if got := c.Now(at(time.Second)); !got.Equal(at(time.Second)) {
		t.Errorf("before the first reply: %v, want the local time", got)
	}
	ahead := time.Hour // by which Redis is ahead of the local clock
	reply := func(sent, server, received time.Duration) {
		c.Observe(at(sent), at(received), at(server+ahead).UnixMicro())
	}
	off := func(local, want time.Duration) {
		t.Helper()
		got := c.Now(at(local)).Sub(at(local).Add(ahead).Round(0))
		if got = got.Abs(); got > want {
			t.Errorf("off by %v, want at most %v", got, want)
		}
	}
	const ms = time.Millisecond
	reply(0, 10*ms, 100*ms) // a reply that took 90 ms to arrive
	off(100*ms, 50*ms)
	reply(200*ms, 202*ms, 202*ms)
	off(202*ms, 2*ms)
	reply(300*ms, 300*ms, 390*ms) // a slow reply does not make it worse
	off(400*ms, 2*ms)
	reply(500*ms, 509*ms, 510*ms) // nor does a slow request
	off(510*ms, 2*ms)
	for _, step := range []time.Duration{-2 * time.Hour, 3 * time.Hour, -time.Second} {
		ahead += step
		reply(600*ms, 601*ms, 602*ms)
		off(602*ms, 2*ms)
	}
	// Two clocks that drift apart by 50 us per second.
	for s := time.Second; s < 100*time.Second; s += time.Second {
		ahead += 50 * time.Microsecond
		reply(s, s+ms/2, s+ms)
		off(s+ms, 2*ms)
	}
	if width := c.high - c.low; width <= 0 || width > 3*ms {
		t.Errorf("bounds %v apart", width)
	}
}
