package report

import (
	"math"
	"testing"
)

// The line of the capacity is through the saturated points only.
func TestCapacityFit(t *testing.T) {
	c := sample().Fanout.Capacity
	line, least, most, ok := c.Fit()
	if !ok || least != 100 || most != 1000 || math.Abs(line.Base-20e-6) > 1e-12 || math.Abs(line.Slope-0.5e-6) > 1e-12 {
		t.Errorf("got %+v from %d to %d (%v), want 20 us + 0.5 us from 100 to 1,000", line, least, most, ok)
	}
	c.Points = c.Points[:2]
	if _, _, _, ok := c.Fit(); ok {
		t.Error("there is a line through one point")
	}
}

// A relay is compared with a primary that has as many subscribers, and with one that has none.
func TestRelayCosts(t *testing.T) {
	costs := sample().Fanout.RelayCosts()
	if len(costs) != 1 || costs[0].Rate != 1000 || costs[0].Subscribers != 20 {
		t.Fatalf("got %+v, want one rate with the fewest subscribers", costs)
	}
	c := costs[0]
	for name, v := range map[string][2]float64{"alone": {c.Alone, 67e-6}, "a relay": {c.Relay, 7e-6}, "a subscriber": {c.Subscriber, 1e-6}, "hop": {c.Hop, 0.3e-3}} {
		if math.Abs(v[0]-v[1]) > 1e-12 {
			t.Errorf("%s: %v, want %v", name, v[0], v[1])
		}
	}
}
