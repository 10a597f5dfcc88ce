package report

import (
	"fmt"
	"slices"
	"strings"

	"heavy-read-api/benchmark/internal/measure"
)

// The claims that this design is made with.
const (
	claimedPropagation = 0.100 // seconds, p99
	claimedRead        = 0.005 // seconds, p99
	claimedRate        = 1e6   // requests a second
	claimedMemory      = 500e6 // bytes for claimedPosts
	claimedPosts       = 1e6
	claimedSaving      = 0.20 // of the bytes
)

// memoryMargin is what "about" means in the claim on memory.
const memoryMargin = 1.10

// Claim is a claim against what was measured.
type Claim struct {
	Claim, Measured string
	Holds           bool
	Known           bool // it was measured
}

// Claims compares each claim with what the run measured. Those about a failover are made for a Redis that
// has one.
func (r *Report) Claims() []Claim {
	claims := []Claim{r.propagationClaim(), r.readClaim(), r.rateClaim(), r.memoryClaim(), r.savingClaim(), r.readersClaim(), r.redisClaim()}
	if len(r.Failovers) > 0 {
		claims = append(claims, r.failoverClaim(), r.plannedClaim())
	}
	return claims
}

func (r *Report) propagationClaim() Claim {
	c := Claim{Claim: "a write is on every reader within 100 ms (p99)"}
	if len(r.Propagation) == 0 {
		return c
	}
	worst := slices.MaxFunc(r.Propagation, func(a, b Propagation) int { return compare(a.Everywhere.P99, b.Everywhere.P99) })
	c.Known, c.Holds = true, worst.Everywhere.P99 < claimedPropagation
	c.Measured = fmt.Sprintf("%s in the worst case, at %d writes/s", Seconds(worst.Everywhere.P99), worst.Rate)
	return c
}

// readClaim looks at the highest rate that was sustained through the gateway: it is the way that
// clients go.
func (r *Report) readClaim() Claim {
	c := Claim{Claim: "a read takes less than 5 ms (p99)"}
	var best *Steady
	for i, s := range r.Latency {
		if s.Via == ViaGateway && s.Sustained && (best == nil || s.Rate > best.Rate) {
			best = &r.Latency[i]
		}
	}
	if best == nil {
		if len(r.Latency) > 0 {
			c.Known, c.Measured = true, "no rate was sustained through the gateway"
		}
		return c
	}
	c.Known, c.Holds = true, Median(best.P99) < claimedRead
	c.Measured = fmt.Sprintf("%s through the gateway at %s reads/s", spread(best.P99, Seconds), Thousands(float64(best.Rate)))
	for _, s := range r.Latency {
		if s.Via == ViaGateway && s.Sustained && s.Rate < best.Rate {
			c.Measured += fmt.Sprintf("; %s at %s", Seconds(Median(s.P99)), Thousands(float64(s.Rate)))
		}
	}
	return c
}

func (r *Report) rateClaim() Claim {
	c := Claim{Claim: "more than 1,000,000 requests/s"}
	for _, l := range r.Pipelined {
		if l.Name == LaneFast {
			c.Known, c.Holds = true, Median(l.Rates) > claimedRate
			c.Measured = fmt.Sprintf("%s requests/s of one reader, %d in flight on each connection, %d cores shared with the load generator",
				spread(l.Rates, Thousands), l.Depth, r.Machine.Cores)
		}
	}
	return c
}

func (r *Report) memoryClaim() Claim {
	c := Claim{Claim: "1,000,000 posts take about 500 MB in a reader"}
	if r.Memory == nil || len(r.Memory.Readers) == 0 {
		return c
	}
	worst := slices.MaxFunc(r.Memory.Readers, func(a, b ReaderMemory) int { return int(a.After - b.After) })
	c.Measured = fmt.Sprintf("%s resident with %s posts of %.0f bytes, which themselves are %s",
		megabytes(worst.After), Thousands(float64(worst.Entries)), r.Workload.MeanBytes, megabytes(int64(float64(worst.Entries)*r.Workload.MeanBytes)))
	if float64(worst.Entries) < claimedPosts {
		c.Measured += ": not a million, so nothing is shown"
		return c
	}
	c.Known, c.Holds = true, float64(worst.After) <= memoryMargin*claimedMemory && worst.Complete
	return c
}

func (r *Report) savingClaim() Claim {
	c := Claim{Claim: "304 saves 20 % of the bandwidth"}
	if len(r.Bytes) == 0 {
		return c
	}
	c.Known = true
	var points []measure.Point
	for _, b := range r.Bytes {
		points = append(points, measure.Point{Value: b.Share, Share: b.Saved()})
	}
	from, ok := measure.SavedFrom(points, claimedSaving)
	most := r.Bytes[len(r.Bytes)-1]
	c.Holds = ok
	c.Measured = fmt.Sprintf("%.0f %% at %.0f %% revisits", 100*most.Saved(), 100*most.Share)
	if ok {
		c.Measured = fmt.Sprintf("from %.0f %% revisits on; ", 100*from) + c.Measured
	}
	return c
}

func (r *Report) readersClaim() Claim {
	c := Claim{Claim: "no read fails when a reader is killed or added"}
	if f := r.Readers; f != nil {
		c.Known, c.Holds = true, f.Failed == 0
		c.Measured = fmt.Sprintf("%d of %s failed", f.Failed, Thousands(float64(f.Requests)))
	}
	return c
}

func (r *Report) redisClaim() Claim {
	c := Claim{Claim: "no read fails when Redis is killed"}
	if f := r.Redis; f != nil {
		c.Known, c.Holds = true, f.Failed == 0
		c.Measured = fmt.Sprintf("%d of %s failed; all readers in step %s after the kill", f.Failed, Thousands(float64(f.Requests)), Seconds(f.Converged))
	}
	return c
}

func (r *Report) failoverClaim() Claim {
	c := Claim{Claim: "no read fails when Redis fails over"}
	failed, requests := 0, 0
	var out, inStep float64
	for _, f := range r.Failovers {
		failed, requests = failed+f.Failed, requests+f.Requests
		out, inStep = max(out, f.Out), max(inStep, f.InStep)
	}
	c.Known, c.Holds = len(r.Failovers) > 0, failed == 0
	c.Measured = fmt.Sprintf("%d of %s failed; no write for %s, all readers in step after %s, at most", failed, Thousands(float64(requests)), Seconds(out), Seconds(inStep))
	return c
}

// plannedClaim is about planned failovers: a primary that is killed may take its last writes along, as
// replication is asynchronous.
func (r *Report) plannedClaim() Claim {
	c := Claim{Claim: "a planned failover loses no acknowledged write"}
	lost, acknowledged := 0, 0
	for _, f := range r.Failovers {
		if f.Planned {
			c.Known = true
			lost, acknowledged = lost+f.Lost, acknowledged+f.Acknowledged
		}
	}
	c.Holds = c.Known && lost == 0
	c.Measured = fmt.Sprintf("%d of %s lost", lost, Thousands(float64(acknowledged)))
	return c
}

// Broken returns the promises that the run saw broken: reads that failed, and writes that were lost. They
// are not a matter of how fast a machine is.
func (r *Report) Broken() []string {
	var broken []string
	for _, c := range []Claim{r.readersClaim(), r.redisClaim(), r.failoverClaim(), r.plannedClaim()} {
		if c.Known && !c.Holds {
			broken = append(broken, c.Claim+": "+c.Measured)
		}
	}
	return broken
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (r *Report) claims(b *strings.Builder) {
	var rows [][]string
	for _, c := range r.Claims() {
		verdict := "not measured"
		if c.Known {
			verdict = "**no**"
			if c.Holds {
				verdict = "yes"
			}
		}
		rows = append(rows, []string{c.Claim, c.Measured, verdict})
	}
	table(b, 3, []string{"claim", "measured", "holds"}, rows)
}
