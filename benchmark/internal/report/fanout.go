package report

import (
	"fmt"
	"slices"
	"strings"

	"heavy-read-api/benchmark/internal/measure"
)

// Fanout is what a write costs Redis by the number of its subscribers.
type Fanout struct {
	Readers int // real readers among the subscribers
	Points  []FanoutPoint
}

// FanoutPoint is a measurement at one rate, with one number of subscribers.
type FanoutPoint struct {
	Rate        int     // writes per second
	Reached     float64 // writes per second that were sent
	Subscribers int     // of the whole deployment, including the readers
	Relays      int     // Redis replicas that have the subscribers; 0 if the primary has them
	Primary     float64 // CPU time of the primary per write, in seconds
	Relay       float64 // CPU time of each relay per write, in seconds
	Delay       Quantiles
}

// FanoutFit is the lines through the points of one rate.
type FanoutFit struct {
	Rate    int
	Primary measure.Line // CPU time of a primary with subscribers, by their number
	Relay   measure.Line // CPU time of a relay, by the number of its subscribers
	Tier    float64      // CPU time of a primary that only has relays, in seconds
	OfRelay float64      // the part of Tier that one relay adds, in seconds
	P99     measure.Line // delay from the primary, by the number of subscribers
	Hop     float64      // how much later the median write arrives through a relay, in seconds
}

// Fits returns the lines for each rate.
func (f *Fanout) Fits() (fits []FanoutFit) {
	var rates []int
	for _, p := range f.Points {
		if !slices.Contains(rates, p.Rate) {
			rates = append(rates, p.Rate)
		}
	}
	for _, rate := range rates {
		var x, primary, p99, p50, relayX, relay, tier, relayed []float64
		relays := 0
		for _, p := range f.Points {
			switch n := float64(p.Subscribers); {
			case p.Rate != rate:
			case p.Relays == 0:
				x, primary = append(x, n), append(primary, p.Primary)
				p99, p50 = append(p99, p.Delay.P99), append(p50, p.Delay.P50)
			default:
				relays = p.Relays
				relayX, relay = append(relayX, n/float64(p.Relays)), append(relay, p.Relay)
				tier, relayed = append(tier, p.Primary), append(relayed, p.Delay.P50)
			}
		}
		fit := FanoutFit{Rate: rate, Primary: measure.Fit(x, primary), Relay: measure.Fit(relayX, relay), P99: measure.Fit(x, p99)}
		if relays > 0 {
			fit.Tier = Median(tier)
			fit.OfRelay = (fit.Tier - fit.Primary.Base) / float64(relays)
			fit.Hop = Median(relayed) - Median(p50)
		}
		fits = append(fits, fit)
	}
	return fits
}

// fanout shows the cost of subscribers.
func (r *Report) fanout(b *strings.Builder) {
	f := r.Fanout
	if f == nil {
		return
	}
	b.WriteString("## Fan-out\n\n")
	fmt.Fprintf(b, "A separate Redis that flushes every write to the disk, one writer, and subscribers on shared cores; %d of the subscribers are readers. With relays, the subscribers are distributed over Redis replicas. The delay is the time from when the writer sends a write to Redis until a subscriber has received it.\n\n", f.Readers)
	var rows [][]string
	for _, p := range f.Points {
		relay := ""
		if p.Relays > 0 {
			relay = Seconds(p.Relay)
		}
		rows = append(rows, []string{Thousands(float64(p.Rate)), Thousands(p.Reached), fmt.Sprint(p.Subscribers), fmt.Sprint(p.Relays), Seconds(p.Primary), relay, Seconds(p.Delay.P50), Seconds(p.Delay.P99)})
	}
	table(b, 0, []string{"writes/s", "sent/s", "subscribers", "relays", "CPU of the primary per write", "CPU of a relay per write", "delay p50", "delay p99"}, rows)
	b.WriteString("Straight lines through these points, by least squares. The residual is the root mean square of the distances.\n\n")
	rows = nil
	line := func(rate int, what string, l measure.Line) {
		rows = append(rows, []string{what, Thousands(float64(rate)), Seconds(l.Base), Seconds(l.Slope), Seconds(l.Residual)})
	}
	fits := f.Fits()
	for _, fit := range fits {
		line(fit.Rate, "CPU of a primary per write", fit.Primary)
		line(fit.Rate, "CPU of a relay per write", fit.Relay)
		line(fit.Rate, "delay p99 from the primary", fit.P99)
	}
	table(b, 1, []string{"", "writes/s", "without subscribers", "each subscriber", "residual"}, rows)
	for _, fit := range fits {
		if fit.Tier == 0 {
			continue
		}
		fmt.Fprintf(b, "At %s writes/s a primary that only has relays takes %s per write", Thousands(float64(fit.Rate)), Seconds(fit.Tier))
		if fit.OfRelay <= 0 || fit.Primary.Slope <= 0 || fit.Hop <= 0 {
			b.WriteString(": the cost of a relay is below the precision of this run.\n\n")
			continue
		}
		fmt.Fprintf(b, ": each relay costs it %s, as much as %.1f subscribers, and the median write arrives %s later.\n\n",
			Seconds(fit.OfRelay), fit.OfRelay/fit.Primary.Slope, Seconds(fit.Hop))
	}
}
