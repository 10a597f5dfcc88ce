package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/measure"
)

// Markdown returns the page. It refers to the plots of Plots as files in the same folder, whose names begin with
// prefix.
func (r *Report) Markdown(prefix string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n\n", args...) }
	plot := func(name, what string) {
		for _, have := range r.plots() {
			if have.name == name {
				p("![%s](%s%s.svg)", what, prefix, name)
			}
		}
	}
	p("# Benchmark report")
	if r.Partial != "" {
		p("**This report is partial: %s.**", r.Partial)
	}
	for _, f := range r.Failed {
		p("**The part %s failed and is missing: %s.**", f.Name, strings.ReplaceAll(f.Reason, "\n", "; "))
	}
	p("A %s run of %s that began on %s. The status of %s answers was checked, and %s of them were compared with the written posts, byte for byte.",
		r.Mode, r.Took.Round(time.Second), r.Began.UTC().Format("2006-01-02 15:04 UTC"), Thousands(float64(r.Checked.Statuses)), Thousands(float64(r.Checked.Bodies)))
	b.WriteString(headlineBegin + "\n")
	r.claims(&b)
	p("A %s run on %s with %d cores, %s, commit %s.", r.Mode, cmp.Or(r.Machine.CPU, "an unknown CPU"), r.Machine.Cores, r.Began.UTC().Format("2 January 2006"), cmp.Or(r.Machine.Commit, "unknown"))
	plot("story", "Reads per second while a reader and Redis are killed")
	b.WriteString(headlineEnd + "\n\n")
	r.setting(&b)
	r.ownCore(&b, plot)
	if len(r.Throughput) > 0 {
		p("## Throughput on shared cores")
		p("A closed loop: wrk keeps %d connections busy, and each sends its next request when the previous one is answered. The requests go directly to one reader of the stack, and then through the gateway to all of them. nginx answers every request with the bytes of one post of average size. Servers and wrk share the %d cores.", r.Workload.Connections, r.Machine.Cores)
		ratios(&b, r.Throughput)
		plot("throughput", "Requests per second by lane")
		lanes(&b, r.Throughput)
		p("Median over the rounds, with the minimum and the maximum. The CPU time is that of the servers that a request passes, including the time in the kernel, but without Redis. p50 and p99 are those of another client that reads single posts at the same time: the latency of a saturated server.")
	}
	if len(r.Pipelined) > 0 {
		p("## Several requests in flight on shared cores")
		p("The same closed loop with %d requests in flight on each connection.", r.Pipelined[0].Depth)
		ratios(&b, r.Pipelined)
		plot("pipelining", "Requests per second with several in flight")
		lanes(&b, r.Pipelined)
	}
	if len(r.Latency) > 0 {
		p("## Latency at a constant rate")
		p("Requests are sent at fixed times, whether or not earlier ones have been answered. A latency is the time from when a request was due to the last byte of its answer, so it includes the wait for a connection. The highest rate is the highest one at which the p99 stays below %s. It is doubled until it fails, bisected to within a tenth, and confirmed with whole rounds.", Seconds(ClaimedRead))
		plot("latency", "Latency percentiles at constant rates")
		r.latencies(&b)
	}
	if len(r.Propagation) > 0 {
		p("## Propagation")
		first := r.Propagation[0]
		p("The time from when a POST was due to the first GET that is answered with the new post, on each of %d readers, which are polled with the ETag of the previous version. Meanwhile %s reads/s go through the gateway.", first.Readers, Thousands(float64(first.Reads)))
		plot("propagation", "Distribution of the propagation time")
		r.propagations(&b)
	}
	if len(r.Bytes) > 0 {
		p("## Bytes saved by 304")
		p("A client reads posts over one connection. For a post that it has read before, it sends the ETag and receives a 304 without a body. All bytes of the connection are counted in both directions, including headers. For comparison, the same posts are read in the same order without ETags.")
		r.revisits(&b)
	}
	if r.Memory != nil {
		p("## Memory and CPU of the stack's readers")
		plot("memory", "Resident memory of each reader")
		r.memory(&b)
	}
	r.million(&b)
	r.updateCost(&b)
	r.fanout(&b)
	if f := r.Readers; f != nil {
		p("## A reader is killed, one is added")
		p("%s reads/s go through the gateway while one of %d readers is killed (kill -9) and comes back, and another one is added.", Thousands(float64(f.Rate)), f.Readers)
		table(&b, 1, []string{"", "measured"}, [][]string{
			{"reads that failed", fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests)))},
			{"reads balanced over all readers after the kill", since(f.KillBalance)},
			{"reads balanced over one more reader after it was requested", since(f.AddBalance)},
			{"latency p50 / p99 / max", quantiles3(f.Latency)},
		})
		p("Balanced means that from then on each reader answers at least half of its fair share of the reads in every quarter of a second. A reader that comes back takes a snapshot of all posts before it is ready.")
		failures(&b, f.Failures)
	}
	if f := r.Redis; f != nil {
		p("## Redis is killed")
		p("%s reads/s go through the gateway while Redis is killed (kill -9) and comes back.", Thousands(float64(f.Rate)))
		table(&b, 1, []string{"", "measured"}, [][]string{
			{"reads that failed", fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests)))},
			{"Redis did not answer for", Seconds(f.Down)},
			{"a write was acknowledged again after", Seconds(f.Writes)},
			{"every reader was in sync again after", Seconds(f.Converged)},
			{"latency p50 / p99 / max", quantiles3(f.Latency)},
		})
		failures(&b, f.Failures)
	}
	if len(r.Failovers) > 0 {
		f := r.Failovers[0]
		p("## Redis fails over")
		p("%s reads/s go through the gateway and %d writes/s to the writer while the primary is killed (kill -9), and while `make failover` replaces it.", Thousands(float64(f.Rate)), f.WriteRate)
		r.failovers(&b)
		p("\"No write\" is the longest time between two acknowledgements, \"in sync\" the time until every reader has served a write that was acknowledged after it. Each write has an id of its own. Every acknowledged write is read back from Redis and from every reader, with its version and its content.")
		for _, f := range r.Failovers {
			failures(&b, f.Failures)
		}
	}
	r.method(&b)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func (r *Report) setting(b *strings.Builder) {
	m, w := r.Machine, r.Workload
	b.WriteString("## Setting\n\n")
	table(b, 2, []string{"", ""}, [][]string{
		{"machine", fmt.Sprintf("%s, %d cores, %s, %s", cmp.Or(m.CPU, "unknown CPU"), m.Cores, cmp.Or(m.Memory, "unknown memory"), cmp.Or(m.Kernel, "unknown kernel"))},
		{"versions", fmt.Sprintf("%s, Redis %s, nginx %s, wrk %s", m.Go, cmp.Or(m.RedisVersion, "unknown"), cmp.Or(m.NginxVersion, "not used"), cmp.Or(m.Wrk, "unknown"))},
		{"commit", cmp.Or(m.Commit, "unknown")},
		{"stack", fmt.Sprintf("%s: %s", m.Runtime, m.Stack)},
		{"posts", fmt.Sprintf("%s, %s; %.0f bytes on average, median %d", Thousands(float64(w.Posts)), w.Source, w.MeanBytes, w.MedianBytes)},
		{"reads", fmt.Sprintf("ids drawn from Zipf(%v) over the posts; answers of %.0f bytes on average", load.Theta, w.ReadBytes)},
		{"closed loop", fmt.Sprintf("%d connections, wrk threads: %d; rounds: %d of %s, lanes in turn", w.Connections, w.Threads, w.Rounds, Seconds(w.Round.Seconds()))},
	})
	fmt.Fprintf(b, "Unless a section says otherwise, load generators, readers, Redis and the gateway share the %d cores. Absolute numbers depend on the machine; ratios between lanes of the same round depend on it much less.\n\n", m.Cores)
	for _, note := range r.Notes {
		fmt.Fprintf(b, "- %s\n", note)
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	r.activity(b)
}

// activity writes a table that shows whether the machine was quiet.
func (r *Report) activity(b *strings.Builder) {
	if len(r.Activity) == 0 {
		return
	}
	percent := func(share float64) string {
		if share == machine.Unknown {
			return "unknown"
		}
		return fmt.Sprintf("%.0f %%", 100*share)
	}
	var rows [][]string
	for _, a := range r.Activity {
		verdict := "quiet"
		if busy := a.Busy(); busy != "" {
			verdict = "**machine busy**: " + busy
		}
		if a.Repeated {
			verdict += " (measured twice)"
		}
		load := "unknown"
		if a.Load != machine.Unknown {
			load = digits(a.Load)
		}
		rows = append(rows, []string{a.Part, verdict, percent(a.IdleBefore), percent(a.Others), percent(a.Steal), load})
	}
	table(b, 2, []string{"part", "machine", "idle before", "other processes", "steal", "load average"}, rows)
	b.WriteString("Shares are of the CPU time of all cores. \"Other processes\" belong neither to the stack nor to the benchmark. The claims of a part that was measured on a busy machine are inconclusive.\n\n")
}

// ownCore writes the section about the reader on a core of its own and its peers.
func (r *Report) ownCore(b *strings.Builder, plot func(name, what string)) {
	o := r.Own
	if o == nil {
		return
	}
	fmt.Fprintf(b, "## One reader, %s\n\n", map[bool]string{true: "a core of its own", false: "cores shared with the load generator"}[o.Pinned])
	where := "Server and load generator share the cores."
	if o.Pinned {
		where = fmt.Sprintf("The server is the only process on core %s; wrk, Redis and the writer run on core %s.", o.Server, o.Clients)
	}
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(o.Versions)) {
		versions = append(versions, name+" "+o.Versions[name])
	}
	fmt.Fprintf(b, "A reader that the benchmark starts for itself, with %s posts of %d bytes. %s All requests are for one post, unless the ids are drawn from a Zipf distribution. %d rounds of %s. Versions: %s.\n\n",
		Thousands(float64(o.Posts)), o.Bytes, where, r.Workload.Rounds, Seconds(o.Round.Seconds()), cmp.Or(strings.Join(versions, ", "), "no peers"))
	plot("own", "Requests per second of one reader and its peers")
	ratios(b, o.Lanes)
	lanes(b, o.Lanes)
	if a, e := laneOf(o.Lanes, LaneUpdated, 0), laneOf(o.Lanes, LaneElsewhere, 0); a != nil && e != nil {
		fmt.Fprintf(b, "With 500 updates/s, the reader answers %s of the requests that it answers while another stack is updated, which takes the same CPU time from the load generator.\n\n", times(measure.Ratio(a.Rates, e.Rates)))
	}
	if len(o.Shared) > 0 && o.Pinned {
		b.WriteString("The same reader on all cores, which it shares with wrk:\n\n")
		lanes(b, o.Shared)
	}
	if len(o.Proxies) > 0 {
		b.WriteString("Proxies in front of one reader, which shares its core with wrk. The CPU time is that of the proxy only.\n\n")
		plot("proxies", "CPU time per request of the gateway and its peers")
		lanes(b, o.Proxies)
	}
}

// million writes the section about the reader with posts of one size.
func (r *Report) million(b *strings.Builder) {
	m := r.Million
	if m == nil {
		return
	}
	fmt.Fprintf(b, "## One reader with %s posts of %d bytes\n\n", Thousands(float64(m.Posts)), m.Bytes)
	rate := func(v float64) string { return Thousands(v) + "/s" }
	rows := [][]string{
		{"import, each batch flushed to disk", rate(m.Imported)},
		{"posts from start to ready", spread(m.Starts, rate)},
		{"posts of a SCAN and MGET that discard them", spread(m.Scans, rate)},
		{"start compared with SCAN and MGET", times(measure.Ratio(m.Starts, m.Scans))},
		{"resident memory during a start, at most", megabytes(m.StartPeak)},
		{"resident memory during updates, reads and scrapes", memoryMeasured(m.Peak, int64(m.Posts), float64(m.Bytes))},
		{fmt.Sprintf("memory of %s idle connections", Thousands(float64(m.Idle))), megabytes(m.IdleBytes)},
	}
	table(b, 1, []string{"", "measured"}, rows)
	rows = nil
	for _, u := range m.Updates {
		kind := "one request each"
		if u.Bulk {
			kind = "lines of an import"
		}
		lag := "not sampled"
		if len(u.Lags) > 0 {
			s := measure.Summarize(u.Lags)
			lag = fmt.Sprintf("%s (at most %s)", Thousands(s.Median), Thousands(s.Max))
		}
		rows = append(rows, []string{
			rate(float64(u.Rate)) + ", " + kind, Thousands(float64(u.Written)), rate(u.Reads), lag,
			Thousands(float64(u.Collections)), quantiles3(u.Pauses), fmt.Sprintf("%.1f %%", 100*u.Collector),
		})
	}
	table(b, 1, []string{"updates", "written", "reads meanwhile", "writes behind Redis", "garbage collections", "pauses p50 / p99 / max", "GC, share of a core"}, rows)
}

// ratios compares the fast lane with every other lane of the same route and depth.
func ratios(b *strings.Builder, lanes []Lane) {
	var rows [][]string
	for _, fast := range lanes {
		if fast.Name != LaneFast {
			continue
		}
		for _, other := range lanes {
			if other.Via != fast.Via || other.Depth != fast.Depth || other.Name == LaneFast {
				continue
			}
			cpu := "unknown"
			if len(fast.CPU) > 0 && len(other.CPU) > 0 {
				cpu = times(measure.Ratio(fast.CPU, other.CPU))
			}
			rows = append(rows, []string{route(fast), "/post compared with " + other.Name, times(measure.Ratio(fast.Rates, other.Rates)), cpu})
		}
	}
	table(b, 2, []string{"route", "ratio", "requests/s", "CPU per request"}, rows)
}

// route describes how the requests of a lane reach the readers.
func route(l Lane) string {
	if l.Depth > 1 {
		return fmt.Sprintf("%s, %d in flight", l.Via, l.Depth)
	}
	return l.Via
}

func times(s measure.Spread) string {
	if s.Rounds == 0 {
		return "unknown"
	}
	if s.Rounds == 1 {
		return "× " + digits(s.Median)
	}
	return fmt.Sprintf("× %s (%s–%s)", digits(s.Median), digits(s.Min), digits(s.Max))
}

func lanes(b *strings.Builder, lanes []Lane) {
	var rows [][]string
	for _, l := range lanes {
		rows = append(rows, []string{
			route(l), l.Name, spread(l.Rates, Thousands), spread(l.P50, Seconds), spread(l.P99, Seconds), spread(l.CPU, Seconds), digits(Median(l.ClientCPU)),
		})
	}
	table(b, 2, []string{"route", "lane", "requests/s", "p50", "p99", "CPU per request", "wrk, cores"}, rows)
}

func (r *Report) latencies(b *strings.Builder) {
	var rows [][]string
	for _, s := range r.Latency {
		rate := "given"
		if s.Highest {
			rate = "highest with p99 < " + Seconds(ClaimedRead)
		}
		if s.Rate == 0 {
			rows = append(rows, []string{s.Via, rate, "none", "", "", "", "", "", "", ""})
			continue
		}
		row := []string{s.Via, rate, Thousands(float64(s.Rate)), Thousands(s.Reached)}
		if s.Sustained {
			for _, q := range [][]float64{s.P50, s.P90, s.P99, s.P999} {
				row = append(row, spread(q, Seconds))
			}
		} else {
			row = append(row, "not sustained", "", "", "")
		}
		rows = append(rows, append(row, Seconds(s.Late), digits(s.ClientCPU)))
	}
	table(b, 2, []string{"route", "rate", "requested/s", "sent/s", "p50", "p90", "p99", "p99.9", "sent late, p99", "client, cores"}, rows)
	b.WriteString("A rate is not sustained when fewer requests were sent than were due; its latencies would grow with the length of the run. \"Sent late\" is the time from when a request was due to when it was sent. The latency includes it.\n\n")
}

func (r *Report) propagations(b *strings.Builder) {
	var rows [][]string
	row := func(name, sent string, q Quantiles) {
		rows = append(rows, []string{name, sent, Thousands(float64(q.Count)), Seconds(q.P50), Seconds(q.P99), Seconds(q.P999), Seconds(q.Max)})
	}
	for _, p := range r.Propagation {
		row(fmt.Sprintf("%s writes/s, the last reader", Thousands(float64(p.Rate))), digits(p.Reached), p.Everywhere)
		row(fmt.Sprintf("%s writes/s, the first reader", Thousands(float64(p.Rate))), digits(p.Reached), p.First)
	}
	if f := r.Floor; f != nil {
		row("Redis Pub/Sub only: publish to delivery", digits(float64(f.Rate)), f.Quantiles)
	}
	table(b, 1, []string{"", "sent/s", "followed", "p50", "p99", "p99.9", "max"}, rows)
	for _, h := range r.HighestWrites {
		if h.Rate == 0 {
			fmt.Fprintf(b, "- p99 below %s at no write rate that was measured\n", Seconds(h.Bound))
		} else {
			fmt.Fprintf(b, "- p99 below %s up to %s writes/s (p99 %s at that rate)\n", Seconds(h.Bound), Thousands(float64(h.Rate)), Seconds(h.P99))
		}
	}
	if len(r.HighestWrites) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("At higher rates only some of the writes are followed. The resolution is the time since the last poll without the new post; the post became visible at most that much earlier. Resolution (p50 / p99):")
	var resolutions []string
	for _, p := range r.Propagation {
		resolutions = append(resolutions, fmt.Sprintf("%s / %s at %s writes/s", Seconds(p.Resolution.P50), Seconds(p.Resolution.P99), Thousands(float64(p.Rate))))
	}
	b.WriteString(" " + strings.Join(resolutions, ", ") + ".")
	if f := r.Floor; f != nil {
		half := r.Propagation[0]
		for _, p := range r.Propagation {
			if p.Rate == f.Rate {
				half = p
			}
		}
		fmt.Fprintf(b, " Redis Pub/Sub without the stack, with messages of %d bytes, is the lower bound: at %d writes/s the propagation takes %s times as long (p50).", f.Bytes, half.Rate, digits(half.Everywhere.P50/f.P50))
	}
	b.WriteString("\n\n")
}

func (r *Report) revisits(b *strings.Builder) {
	var rows [][]string
	for _, v := range r.Bytes {
		rows = append(rows, []string{
			fmt.Sprintf("%.0f %%", 100*v.Share), fmt.Sprintf("%d of %d", v.NotModified, v.Requests),
			Thousands(float64(v.Plain+v.PlainSent) / float64(v.Requests)), Thousands(float64(v.Conditional+v.ConditionalSent) / float64(v.Requests)),
			fmt.Sprintf("%.0f %%", 100*v.Saved()), fmt.Sprintf("%.0f %%", 100*(1-float64(v.Conditional)/float64(v.Plain))),
		})
	}
	table(b, 1, []string{"revisits", "answered 304", "bytes per request", "with ETags", "saved", "saved of the bytes received"}, rows)
}

func (r *Report) memory(b *strings.Builder) {
	m := r.Memory
	var rows [][]string
	for _, v := range m.Readers {
		before, peak, each, cpu := "unknown", "unknown", "unknown", "unknown"
		if m.Imported {
			before, peak, cpu = megabytes(v.Before), megabytes(v.Peak), Seconds(v.CPU)
			if grown := v.Entries - v.EntriesBefore; grown > 0 {
				each = digits(float64(v.After-v.Before) / float64(grown))
			}
		}
		complete := "all"
		if !v.Complete {
			complete = "a part"
		}
		rows = append(rows, []string{v.Name, Thousands(float64(v.Entries)), complete, before, peak, megabytes(v.After), each, cpu, digits(v.Traffic)})
	}
	table(b, 1, []string{"reader", "posts", "held", "before", "at most", "after", "bytes per post", "CPU of the import", "cores under load"}, rows)
	if m.Imported {
		fmt.Fprintf(b, "%s posts were imported through the writer in %s (%s/s) while every reader followed. ", Thousands(float64(m.Posts)), Seconds(m.Seconds), Thousands(float64(m.Posts)/m.Seconds))
	}
	b.WriteString("Resident memory is taken from the metrics of the process. \"Cores under load\" is the number of cores that a reader uses while wrk reads through the gateway. The last reader is not behind the gateway.\n\n")
}

func (r *Report) method(b *strings.Builder) {
	fmt.Fprintf(b, "## How to repeat the run\n\n```sh\nmake start\n%s\n```\n\nThe closed loop runs this command, with the ids and the path in the environment:\n\n```sh\n%s\n```\n", r.Command, r.Workload.WrkCommand)
}

func since(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return Seconds(seconds)
}

func quantiles3(q Quantiles) string {
	return fmt.Sprintf("%s / %s / %s", Seconds(q.P50), Seconds(q.P99), Seconds(q.Max))
}

func failures(b *strings.Builder, all []load.Failure) {
	for _, f := range all {
		fmt.Fprintf(b, "- failed after %s: %s\n", Seconds(f.At.Seconds()), f.Reason)
	}
	if len(all) > 0 {
		b.WriteByte('\n')
	}
}

func (r *Report) failovers(b *strings.Builder) {
	var rows [][]string
	for _, f := range r.Failovers {
		rows = append(rows, []string{
			f.Name(), f.From + " to " + f.To, Seconds(f.Out), Seconds(f.InSync),
			fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests))), fmt.Sprintf("%d of %s", f.Lost, Thousands(float64(f.Acknowledged))),
			Thousands(float64(f.Refused)), quantiles3(f.Latency),
		})
	}
	table(b, 2, []string{"", "primary", "no write for", "readers in sync after", "reads failed", "writes lost", "writes refused", "reads p50 / p99 / max"}, rows)
}
