package report

import (
	"fmt"
	"slices"
	"strings"

	"heavy-read-api/benchmark/internal/measure"
)

// Fanout is what a write costs Redis by the number of its subscribers.
type Fanout struct {
	Capacity *Capacity
	Readers  int           // real readers among the subscribers of Points
	Points   []FanoutPoint // at constant rates
}

// CapacityShare is the part of the writes that a saturated Redis takes, at which the delay is measured too.
const CapacityShare = 0.7

// saturation is the part of the time that a saturated Redis is busy.
const saturation = 0.9

// Capacity is how many writes one Redis delivers.
type Capacity struct {
	Pinned          bool    // Redis had a core of its own
	Server, Clients string  // cores, if Pinned
	InFlight        int     // writes in flight
	Bytes           float64 // mean size of a post
	Points          []CapacityPoint
}

// CapacityPoint is a measurement with one number of subscribers.
type CapacityPoint struct {
	Subscribers int
	Full        CapacityLoad // as many writes as Redis takes
	Part        CapacityLoad // CapacityShare of them
}

// CapacityLoad is what Redis did.
type CapacityLoad struct {
	Rate  float64 // writes per second
	Core  float64 // CPU time of Redis, as a part of one core
	Busy  float64 // part of the time in which Redis ran, or waited for its core because other processes used it
	CPU   float64 // CPU time of Redis per write, in seconds
	Delay Quantiles
}

// saturated reports whether Redis was the limit, and not the load generator or the subscribers.
func (l CapacityLoad) saturated() bool { return l.Busy >= saturation }

// Fit returns the line through the CPU time of a saturated Redis per write, by the number of subscribers, with a relative
// residual, and the smallest and the largest of these numbers. ok is false with fewer than two saturated points.
func (c *Capacity) Fit() (line measure.Line, least, most int, ok bool) {
	var x, y []float64
	for _, p := range c.Points {
		if !p.Full.saturated() {
			continue
		}
		if len(x) == 0 || p.Subscribers < least {
			least = p.Subscribers
		}
		most = max(most, p.Subscribers)
		x, y = append(x, float64(p.Subscribers)), append(y, p.Full.CPU)
	}
	return measure.FitRelative(x, y), least, most, least < most
}

// FanoutPoint is a measurement at one rate, with one number of subscribers.
type FanoutPoint struct {
	Rate        int     // writes per second
	Reached     float64 // writes per second that were sent
	Subscribers int     // of the whole deployment, including the readers; 0 for a primary without any
	Relays      int     // Redis replicas that have the subscribers; 0 if the primary has them
	Primary     float64 // CPU time of the primary per write, in seconds
	Relay       float64 // CPU time of each relay per write, in seconds
	Delay       Quantiles
}

// RelayCost is what relays cost at one rate, with the smallest number of subscribers.
type RelayCost struct {
	Rate, Subscribers int
	Alone             float64 // CPU time per write of a primary without subscribers and relays, in seconds
	Relay             float64 // CPU time of the primary per write that each relay adds, in seconds
	Subscriber        float64 // CPU time of the primary per write that each subscriber adds, in seconds
	Hop               float64 // how much later the median write arrives through a relay, in seconds
}

// alone returns the CPU time per write of a primary without subscribers and relays, or 0 if it was not measured.
func (f *Fanout) alone(rate int) float64 {
	for _, p := range f.Points {
		if p.Rate == rate && p.Subscribers == 0 {
			return p.Primary
		}
	}
	return 0
}

// RelayCosts returns the cost of relays at each rate.
func (f *Fanout) RelayCosts() (costs []RelayCost) {
	for _, relayed := range f.Points {
		known := slices.ContainsFunc(costs, func(c RelayCost) bool { return c.Rate == relayed.Rate })
		i := slices.IndexFunc(f.Points, func(p FanoutPoint) bool {
			return p.Rate == relayed.Rate && p.Relays == 0 && p.Subscribers == relayed.Subscribers
		})
		if relayed.Relays == 0 || known || i < 0 {
			continue
		}
		direct, c := f.Points[i], RelayCost{Rate: relayed.Rate, Subscribers: relayed.Subscribers, Alone: f.alone(relayed.Rate)}
		c.Relay = (relayed.Primary - c.Alone) / float64(relayed.Relays)
		c.Subscriber = (direct.Primary - c.Alone) / float64(direct.Subscribers)
		c.Hop = relayed.Delay.P50 - direct.Delay.P50
		costs = append(costs, c)
	}
	return costs
}

// fanout shows the cost of subscribers.
func (r *Report) fanout(b *strings.Builder) {
	if r.Fanout == nil {
		return
	}
	b.WriteString("## Fan-out\n\n")
	r.Fanout.Capacity.describe(b)
	r.Fanout.describe(b)
}

// describe shows how many writes one Redis delivers.
func (c *Capacity) describe(b *strings.Builder) {
	if c == nil {
		return
	}
	b.WriteString("### Capacity of one Redis\n\n")
	where := "Redis shares the cores with the load generator and the subscribers."
	if c.Pinned {
		where = fmt.Sprintf("Redis runs on core %s, the load generator and the subscribers on core %s.", c.Server, c.Clients)
	}
	fmt.Fprintf(b, "How many writes one Redis delivers to its subscribers, and how late. %s Each of %d connections sends the writer's script with posts of %.0f bytes to Redis, one write at a time. Redis flushes to the disk once a second, so that the disk is not the limit. The subscribers discard what they receive; two of them note the delay, from when a write is sent to Redis until a subscriber has received it. All connections are on the loopback, so that the CPU time of Redis includes the receiving side of TCP.\n\n",
		where, c.InFlight, c.Bytes)
	core := func(l CapacityLoad) string { return fmt.Sprintf("%.0f %%", 100*l.Core) }
	var rows [][]string
	for _, p := range c.Points {
		busy := fmt.Sprintf("%.0f %%", 100*p.Full.Busy)
		if !p.Full.saturated() {
			busy += " (not saturated)"
		}
		rows = append(rows, []string{
			Thousands(float64(p.Subscribers)), Thousands(p.Full.Rate), core(p.Full), busy, Seconds(p.Full.CPU), Seconds(p.Full.Delay.P50), Seconds(p.Full.Delay.P99),
			Thousands(p.Part.Rate), core(p.Part), Seconds(p.Part.Delay.P50), Seconds(p.Part.Delay.P99),
		})
	}
	part := fmt.Sprintf("at %.0f %%: ", 100*CapacityShare)
	table(b, 0, []string{"subscribers", "writes/s", "of a core", "busy", "CPU per write", "delay p50", "delay p99", part + "writes/s", "of a core", "delay p50", "delay p99"}, rows)
	fmt.Fprintf(b, "Redis is busy while it runs, or waits for its core because another process uses it, and saturated if it is busy for at least %.0f %% of the time; otherwise the load generator or the subscribers are the limit. A saturated Redis delivers a write after about %d / (writes/s), because so many are in flight. The last columns are for %.0f %% of the writes/s, at a constant rate.\n\n", 100*saturation, c.InFlight, 100*CapacityShare)
	line, least, most, ok := c.Fit()
	if !ok {
		b.WriteString("There is no line through the saturated points, because there are fewer than two.\n\n")
		return
	}
	fmt.Fprintf(b, "The line through the saturated points, by least squares of the relative distances, is %s + %s x subscribers of CPU time per write; the residual (root mean square) is %.0f %%. It holds from %s to %s subscribers for a saturated Redis, in which many messages share a send.",
		Seconds(line.Base), Seconds(line.Slope), 100*line.Residual, Thousands(float64(least)), Thousands(float64(most)))
	var ends []string
	for _, n := range []float64{10, 100, 1000, 10_000} {
		if cpu := line.Base + line.Slope*n; cpu > 0 {
			ends = append(ends, fmt.Sprintf("%s writes/s with %s subscribers", Thousands(1/cpu), Thousands(n)))
		}
	}
	fmt.Fprintf(b, " By this line one core ends at %s; outside of the range this is extrapolated.\n\n", strings.Join(ends, ", "))
}

// describe shows the points at constant rates.
func (f *Fanout) describe(b *strings.Builder) {
	b.WriteString("### Subscribers and relays at constant rates\n\n")
	fmt.Fprintf(b, "Redis flushes every write to the disk and shares the cores with one writer and the subscribers, %d of which are readers. With relays, the subscribers are distributed over Redis replicas. While Redis has idle time, each message is a send of its own; the busier it is, the more messages share a send, and the less a subscriber costs. So these CPU times hold for their rate and number of subscribers only. They do not show where a core ends.\n\n", f.Readers)
	var rows [][]string
	for _, p := range f.Points {
		each, relay, p50, p99 := "", "", "", ""
		if alone := f.alone(p.Rate); p.Relays == 0 && p.Subscribers > 0 && alone > 0 {
			each = Seconds((p.Primary - alone) / float64(p.Subscribers))
		}
		if p.Relays > 0 {
			relay = Seconds(p.Relay)
		}
		if p.Subscribers > 0 {
			p50, p99 = Seconds(p.Delay.P50), Seconds(p.Delay.P99)
		}
		rows = append(rows, []string{Thousands(float64(p.Rate)), Thousands(p.Reached), fmt.Sprint(p.Subscribers), fmt.Sprint(p.Relays), Seconds(p.Primary), each, relay, p50, p99})
	}
	table(b, 0, []string{"writes/s", "sent/s", "subscribers", "relays", "CPU of the primary per write", "each subscriber", "CPU of a relay per write", "delay p50", "delay p99"}, rows)
	for _, c := range f.RelayCosts() {
		fmt.Fprintf(b, "At %s writes/s a primary without subscribers and relays takes %s per write", Thousands(float64(c.Rate)), Seconds(c.Alone))
		if c.Relay <= 0 || c.Subscriber <= 0 || c.Hop <= 0 {
			b.WriteString(": the cost of a relay is below the precision of this run.\n\n")
			continue
		}
		fmt.Fprintf(b, ". Each relay adds %s, as much as %.1f subscribers when there are %d, and the median write arrives %s later.\n\n",
			Seconds(c.Relay), c.Relay/c.Subscriber, c.Subscribers, Seconds(c.Hop))
	}
}
