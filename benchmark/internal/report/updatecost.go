package report

import (
	"fmt"
	"strings"

	"heavy-read-api/benchmark/internal/measure"
)

// UpdateCost is what an update of a post costs, and how soon it is visible. Every slice has an element for each round.
type UpdateCost struct {
	Rate, Reads           int       // updates and reads a second
	Redis, Writer, Reader []float64 // CPU time of an update at Rate, in seconds, without reads
	Delivered             []Quantiles
	Stored                []Quantiles // Delivered after a SET that Redis flushes to the disk
	Visible               []Quantiles // from POST to the answer of the reader, one write at a time
	Beside                []Quantiles // from POST to visible at Rate beside Reads
	BesideRates           []float64   // updates a second that were sent meanwhile
	BesideReads           []Quantiles // latency of these reads
}

// updateCost shows what an update costs.
func (r *Report) updateCost(b *strings.Builder) {
	u := r.UpdateCost
	if u == nil {
		return
	}
	b.WriteString("## Cost of an update\n\n")
	fmt.Fprintf(b, "One Redis that flushes every write to the disk, one writer and one reader on shared cores. CPU time is that of a process for each of %s updates/s, one request each, without reads.\n\n", Thousands(float64(u.Rate)))
	table(b, 1, []string{"CPU time of an update", "measured"}, [][]string{
		{"Redis", spread(u.Redis, Seconds)}, {"writer", spread(u.Writer, Seconds)}, {"reader", spread(u.Reader, Seconds)},
	})
	b.WriteString("The other times are from before a message or a POST is sent, one at a time, to its delivery or to the reader's answer with the post to a request that waits for its version. The ratios are to PUBLISH to delivered of the same round.\n\n")
	p50 := func(q Quantiles) float64 { return q.P50 }
	p99 := func(q Quantiles) float64 { return q.P99 }
	row := func(name string, rounds []Quantiles, against bool) []string {
		cells := []string{name, spread(each(rounds, p50), Seconds), spread(each(rounds, p99), Seconds), "", ""}
		if against {
			cells[3] = times(measure.Ratio(each(rounds, p50), each(u.Delivered, p50)))
			cells[4] = times(measure.Ratio(each(rounds, p99), each(u.Delivered, p99)))
		}
		return cells
	}
	table(b, 1, []string{"", "p50", "p99", "p50 ratio", "p99 ratio"}, [][]string{
		row("Redis without the API, PUBLISH to delivered", u.Delivered, false),
		row("Redis without the API, SET and PUBLISH to delivered", u.Stored, true),
		row("POST to visible", u.Visible, true),
		row(fmt.Sprintf("POST to visible at %s updates/s beside %s reads/s", Thousands(float64(u.Rate)), Thousands(float64(u.Reads))), u.Beside, false),
		row("these reads", u.BesideReads, false),
	})
	if sent := Median(u.BesideRates); sent < 0.97*float64(u.Rate) {
		fmt.Fprintf(b, "Only %s updates/s were sent beside the reads, so their times are those of fewer updates.\n\n", Thousands(sent))
	}
}

// each returns a value of each round.
func each(rounds []Quantiles, value func(Quantiles) float64) []float64 {
	values := make([]float64, len(rounds))
	for i, q := range rounds {
		values[i] = value(q)
	}
	return values
}
