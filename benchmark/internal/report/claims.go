package report

import (
	"fmt"
	"slices"
	"strings"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
)

// ClaimedRead is the bound of the p99 of reads, in seconds.
const ClaimedRead = 0.005

// ClaimedPropagation are the bounds of the p99 of propagation, in seconds. The claim is about the first one.
var ClaimedPropagation = []float64{0.100, 0.010}

const (
	claimedReads  = 1000    // minimum rate, in reads per second, at which the p99 stays below ClaimedRead
	claimedWrites = 1000    // minimum rate, in writes per second, at which the p99 stays below its bound
	claimedRate   = 1e6     // requests per second of one reader
	claimedMemory = 550e6   // bytes for claimedPosts: "about 500 MB" with a margin of a tenth
	claimedPosts  = 1000000 // posts
	claimedSaving = 0.20    // share of the bytes that 304 saves
)

// Verdict is the outcome of the comparison of a claim with a measurement.
type Verdict string

// The verdicts. A claim is inconclusive when the machine was busy while it was measured.
const (
	NotMeasured  Verdict = "not measured"
	Yes          Verdict = "yes"
	No           Verdict = "no"
	Inconclusive Verdict = "inconclusive"
)

// Claim is a claim, the setting in which it was measured, and the result.
type Claim struct {
	Claim, Setting, Measured string
	Verdict                  Verdict
}

// Claims compares each claim with the measurements. The claim about planned failovers is omitted when there was none.
func (r *Report) Claims() []Claim {
	claims := []Claim{
		r.rateClaim(), r.readClaim(ViaDirect), r.readClaim(ViaGateway), r.propagationClaim(), r.memoryClaim(), r.smallMemoryClaim(), r.savingClaim(), r.faultsClaim(),
	}
	if len(r.Failovers) > 0 {
		claims = append(claims, r.plannedClaim())
	}
	return claims
}

// judge sets the verdict of a claim that the parts measured.
func (r *Report) judge(c *Claim, holds bool, parts ...string) {
	c.Verdict = No
	if holds {
		c.Verdict = Yes
	}
	if busy := r.busy(parts...); busy != "" {
		c.Verdict = Inconclusive
		c.Measured += " (machine busy: " + busy + ")"
	}
}

// busy returns the reason why the machine was busy during one of the parts, or "".
func (r *Report) busy(parts ...string) string {
	for _, a := range r.Activity {
		if reason := a.Busy(); reason != "" && slices.Contains(parts, a.Part) {
			return reason
		}
	}
	return ""
}

// laneOf returns the lane with a name and a depth (0 means any depth), or nil.
func laneOf(lanes []Lane, name string, depth int) *Lane {
	for i, l := range lanes {
		if l.Name == name && (depth == 0 || l.Depth == depth) && len(l.Rates) > 0 {
			return &lanes[i]
		}
	}
	return nil
}

// deepest returns the lane of the given name with the most requests in flight, or nil.
func deepest(lanes []Lane, name string) *Lane {
	var best *Lane
	for i, l := range lanes {
		if l.Name == name && len(l.Rates) > 0 && (best == nil || l.Depth > best.Depth) {
			best = &lanes[i]
		}
	}
	return best
}

func (r *Report) rateClaim() Claim {
	c := Claim{Claim: "one reader answers more than 1,000,000 requests/s", Verdict: NotMeasured}
	if r.Own == nil {
		return c
	}
	l := deepest(r.Own.Lanes, LaneFast)
	if l == nil {
		return c
	}
	c.Setting = fmt.Sprintf("%s; %d connections with %d requests in flight each, one post of %d bytes", r.Own.Setting(), r.Workload.Connections, l.Depth, r.Own.Bytes)
	c.Measured = spread(l.Rates, Thousands) + " requests/s"
	if zipf := laneOf(r.Own.Lanes, LaneZipf, l.Depth); zipf != nil {
		c.Measured += fmt.Sprintf("; %s with ids drawn from %s posts", Thousands(Median(zipf.Rates)), Thousands(float64(r.Own.Posts)))
	}
	if shared := laneOf(r.Own.Shared, LaneFast, l.Depth); shared != nil && r.Own.Pinned {
		c.Measured += fmt.Sprintf("; %s on %d cores shared with the load generator", Thousands(Median(shared.Rates)), r.Machine.Cores)
	}
	r.judge(&c, Median(l.Rates) > claimedRate, PartLanes)
	return c
}

func (r *Report) readClaim(via string) Claim {
	c := Claim{Claim: "a read through the gateway takes less than 5 ms (p99)", Verdict: NotMeasured}
	if via == ViaDirect {
		c.Claim = "a read from one reader takes less than 5 ms (p99)"
	}
	var highest, reference *Steady
	for i, s := range r.Latency {
		switch {
		case s.Via != via:
		case s.Highest:
			highest = &r.Latency[i]
		default:
			reference = &r.Latency[i]
		}
	}
	if highest == nil {
		return c
	}
	c.Setting = fmt.Sprintf("constant rate over up to %d connections, %d cores shared with the load generator", r.Workload.Connections, r.Machine.Cores)
	c.Measured = "at no rate that was measured"
	if highest.Rate > 0 {
		c.Measured = fmt.Sprintf("up to %s reads/s", Thousands(float64(highest.Rate)))
	}
	if reference != nil && reference.Sustained {
		c.Measured += fmt.Sprintf("; at %s reads/s p50 %s, p99 %s, p99.9 %s", Thousands(float64(reference.Rate)),
			Seconds(Median(reference.P50)), Seconds(Median(reference.P99)), Seconds(Median(reference.P999)))
	}
	r.judge(&c, highest.Rate >= claimedReads, PartLatency)
	return c
}

func (r *Report) propagationClaim() Claim {
	c := Claim{Claim: "a write is on every reader within 100 ms (p99)", Verdict: NotMeasured}
	if len(r.HighestWrites) == 0 || len(r.Propagation) == 0 {
		return c
	}
	first := r.Propagation[0]
	c.Setting = fmt.Sprintf("%d readers, with %s reads/s through the gateway, %d cores shared by all", first.Readers, Thousands(float64(first.Reads)), r.Machine.Cores)
	var all []string
	for _, h := range r.HighestWrites {
		text := fmt.Sprintf("within %s at no rate that was measured", Seconds(h.Bound))
		if h.Rate > 0 {
			text = fmt.Sprintf("within %s up to %s writes/s", Seconds(h.Bound), Thousands(float64(h.Rate)))
		}
		all = append(all, text)
	}
	for _, p := range r.Propagation {
		if p.Rate == claimedWrites {
			all = append(all, fmt.Sprintf("at %s writes/s p50 %s, p99 %s", Thousands(float64(p.Rate)), Seconds(p.Everywhere.P50), Seconds(p.Everywhere.P99)))
		}
	}
	c.Measured = strings.Join(all, "; ")
	r.judge(&c, r.HighestWrites[0].Rate >= claimedWrites, PartPropagation)
	return c
}

// memoryMeasured describes memory as a multiple of the size of the posts.
func memoryMeasured(peak, posts int64, bytes float64) string {
	raw := float64(posts) * bytes
	return fmt.Sprintf("%s at most, %s times the %s of the posts", megabytes(peak), digits(float64(peak)/raw), megabytes(int64(raw)))
}

func memoryName(bytes float64) string {
	return fmt.Sprintf("1,000,000 posts of %.0f bytes take about 500 MB (at most %s)", bytes, megabytes(claimedMemory))
}

func (r *Report) memoryClaim() Claim {
	c := Claim{Claim: memoryName(r.Workload.MeanBytes), Verdict: NotMeasured}
	if r.Memory == nil || len(r.Memory.Readers) == 0 {
		return c
	}
	c.Setting = "resident memory of each reader of the stack, including the import"
	peak := func(m ReaderMemory) int64 { return max(m.Peak, m.After) }
	worst := slices.MaxFunc(r.Memory.Readers, func(a, b ReaderMemory) int { return int(peak(a) - peak(b)) })
	c.Measured = memoryMeasured(peak(worst), worst.Entries, r.Workload.MeanBytes)
	fewest := slices.MinFunc(r.Memory.Readers, func(a, b ReaderMemory) int { return int(a.Entries - b.Entries) }).Entries
	if r.Memory.Posts < claimedPosts || fewest < int64(r.Memory.Posts) {
		c.Measured += fmt.Sprintf(", with %s of %s posts held", Thousands(float64(fewest)), Thousands(float64(r.Memory.Posts)))
	}
	if r.Memory.Posts < claimedPosts {
		return c
	}
	complete := !slices.ContainsFunc(r.Memory.Readers, func(m ReaderMemory) bool { return !m.Complete })
	r.judge(&c, peak(worst) <= claimedMemory && complete && fewest >= claimedPosts, PartMemory)
	return c
}

func (r *Report) smallMemoryClaim() Claim {
	c := Claim{Claim: memoryName(259), Verdict: NotMeasured}
	if r.Million == nil {
		return c
	}
	c.Claim = memoryName(float64(r.Million.Bytes))
	c.Setting = "resident memory of one reader, including updates and scrapes"
	c.Measured = memoryMeasured(r.Million.Peak, int64(r.Million.Posts), float64(r.Million.Bytes))
	if r.Million.Posts < claimedPosts {
		c.Measured += fmt.Sprintf(", with %s posts", Thousands(float64(r.Million.Posts)))
		return c
	}
	r.judge(&c, r.Million.Peak <= claimedMemory, PartMillion)
	return c
}

func (r *Report) savingClaim() Claim {
	c := Claim{Claim: "304 saves 20 % of the bandwidth", Verdict: NotMeasured}
	if len(r.Bytes) == 0 {
		return c
	}
	c.Setting = "one client that sends the ETags of posts that it has read before; headers and requests are included"
	var points []measure.Point
	for _, b := range r.Bytes {
		points = append(points, measure.Point{Value: b.Share, Share: b.Saved()})
	}
	from, ok := measure.SavedFrom(points, claimedSaving)
	most := r.Bytes[len(r.Bytes)-1]
	c.Measured = fmt.Sprintf("%.0f %% at %.0f %% revisits", 100*most.Saved(), 100*most.Share)
	if ok {
		c.Measured = fmt.Sprintf("from %.0f %% revisits on; ", 100*from) + c.Measured
	}
	r.judge(&c, ok, PartBytes)
	return c
}

// faults adds up the reads of all faults.
func (r *Report) faults() (failed, requests int, names, parts []string) {
	add := func(part, name string, f, n int) {
		failed, requests = failed+f, requests+n
		names, parts = append(names, name), append(parts, part)
	}
	if f := r.Readers; f != nil {
		add(PartReaders, "a reader killed and one added", f.Failed, f.Requests)
	}
	if f := r.Redis; f != nil {
		add(PartRedis, "Redis killed", f.Failed, f.Requests)
	}
	for _, f := range r.Failovers {
		add(PartFailover, f.Name(), f.Failed, f.Requests)
	}
	return failed, requests, names, parts
}

func (r *Report) faultsClaim() Claim {
	c := Claim{Claim: "no read fails when readers or Redis are killed", Verdict: NotMeasured}
	failed, requests, names, parts := r.faults()
	if len(parts) == 0 {
		return c
	}
	slices.Sort(names)
	c.Setting = fmt.Sprintf("%s, with %s reads/s through the gateway", strings.Join(slices.Compact(names), ", "), Thousands(float64(r.Workload.Rate)))
	c.Measured = fmt.Sprintf("%s of %s reads failed", Thousands(float64(failed)), Thousands(float64(requests)))
	if f := r.Redis; f != nil {
		c.Measured += fmt.Sprintf("; all readers in sync %s after the kill of Redis", Seconds(f.Converged))
	}
	var out, inSync float64
	for _, f := range r.Failovers {
		out, inSync = max(out, f.Out), max(inSync, f.InSync)
	}
	if len(r.Failovers) > 0 {
		c.Measured += fmt.Sprintf("; no write for %s, all readers in sync after %s, at most, in a failover", Seconds(out), Seconds(inSync))
	}
	r.judge(&c, failed == 0, parts...)
	return c
}

// plannedLosses counts the lost and the acknowledged writes of planned failovers. A primary that is killed may lose
// its last writes, because replication is asynchronous.
func (r *Report) plannedLosses() (lost, acknowledged int) {
	for _, f := range r.Failovers {
		if f.Planned {
			lost, acknowledged = lost+f.Lost, acknowledged+f.Acknowledged
		}
	}
	return lost, acknowledged
}

func (r *Report) plannedClaim() Claim {
	c := Claim{Claim: "a planned failover loses no acknowledged write", Verdict: NotMeasured}
	lost, acknowledged := r.plannedLosses()
	if acknowledged == 0 {
		return c
	}
	c.Setting = fmt.Sprintf("%d writes/s", r.Failovers[0].WriteRate)
	c.Measured = fmt.Sprintf("%d of %s lost", lost, Thousands(float64(acknowledged)))
	r.judge(&c, lost == 0, PartFailover)
	return c
}

// Broken returns the promises that the run broke: reads that failed, and acknowledged writes that a planned failover
// lost. They do not depend on the speed of the machine, so they count even when it was busy.
func (r *Report) Broken() []string {
	var broken []string
	add := func(name string, failed, requests int, failures []load.Failure) {
		if failed == 0 {
			return
		}
		text := fmt.Sprintf("%s: %d of %d reads failed", name, failed, requests)
		if len(failures) > 0 {
			text += ", the first one with " + failures[0].Reason
		}
		broken = append(broken, text)
	}
	if f := r.Readers; f != nil {
		add("a reader was killed", f.Failed, f.Requests, f.Failures)
	}
	if f := r.Redis; f != nil {
		add("Redis was killed", f.Failed, f.Requests, f.Failures)
	}
	for _, f := range r.Failovers {
		add(f.Name(), f.Failed, f.Requests, f.Failures)
	}
	if lost, acknowledged := r.plannedLosses(); lost > 0 {
		broken = append(broken, fmt.Sprintf("planned failover: %d of %d acknowledged writes were lost", lost, acknowledged))
	}
	return broken
}

func (r *Report) claims(b *strings.Builder) {
	var rows [][]string
	for _, c := range r.Claims() {
		verdict := string(c.Verdict)
		if c.Verdict == No {
			verdict = "**no**"
		}
		rows = append(rows, []string{c.Claim, c.Setting, c.Measured, verdict})
	}
	table(b, 4, []string{"claim", "setting", "measured", "holds"}, rows)
}
