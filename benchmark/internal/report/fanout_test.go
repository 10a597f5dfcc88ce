package report

import (
	"math"
	"testing"
)

// The cost of a primary is by all subscribers, that of a relay by its share of them.
func TestFits(t *testing.T) {
	fits := sample().Fanout.Fits()
	if len(fits) != 1 || fits[0].Rate != 1000 {
		t.Fatalf("got %+v, want one rate", fits)
	}
	f := fits[0]
	for name, c := range map[string][2]float64{
		"primary without subscribers": {f.Primary.Base, 67e-6}, "primary, each subscriber": {f.Primary.Slope, 1e-6},
		"relay without subscribers": {f.Relay.Base, 30e-6}, "relay, each subscriber": {f.Relay.Slope, 1e-6},
		"primary with relays": {f.Tier, 81e-6}, "a relay": {f.OfRelay, 7e-6}, "hop": {f.Hop, 0.2e-3}, "residual": {f.Primary.Residual, 0},
	} {
		if math.Abs(c[0]-c[1]) > 1e-12 {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
}
