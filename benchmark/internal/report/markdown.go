package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
)

// Markdown returns the page. Its plots are the files that Plots names, in the same folder, with
// prefix before their names.
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
	p("# What the stack does on this machine")
	if r.Partial != "" {
		p("**This report is partial: %s.**", r.Partial)
	}
	p("A %s run of %s, begun on %s. Every answer counted here was checked: %s by their status, %s of them byte for byte against what was written. None was wrong.",
		r.Mode, r.Took.Round(time.Second), r.Began.UTC().Format("2006-01-02 15:04 UTC"), Thousands(float64(r.Checked.Statuses)), Thousands(float64(r.Checked.Bodies)))
	b.WriteString(headlineBegin + "\n")
	r.claims(&b)
	p("A %s run on %s with %d cores, %s, commit %s.", r.Mode, cmp.Or(r.Machine.CPU, "an unknown CPU"), r.Machine.Cores, r.Began.UTC().Format("2 January 2006"), cmp.Or(r.Machine.Commit, "not known"))
	b.WriteString(headlineEnd + "\n\n")
	r.setting(&b)
	if len(r.Throughput) > 0 {
		p("## Throughput")
		p("Closed loop: wrk keeps %d connections busy, each asks again when it is answered. One reader is asked directly, then all of them through the gateway; nginx answers every request with the bytes of one post of average size.", r.Workload.Connections)
		r.ratios(&b, r.Throughput)
		plot("throughput", "Requests per second by lane")
		lanes(&b, r.Throughput)
		p("Median over the rounds, with the least and the greatest value. CPU is that of the servers that the request passes, the kernel's share included; Redis's is not in it. p50 and p99 are what one more client met, who asked for single posts meanwhile: the latency of a server at its limit. *Latency at a constant rate* has those below it.")
	}
	if len(r.Pipelined) > 0 {
		p("## Several requests in flight")
		p("The same with %d requests in flight on each connection: what a reader can do when the network does not set the pace.", r.Pipelined[0].Depth)
		r.ratios(&b, r.Pipelined)
		plot("pipelining", "Requests per second with several in flight")
		lanes(&b, r.Pipelined)
	}
	if len(r.Latency) > 0 {
		p("## Latency at a constant rate")
		p("Requests are sent at fixed times, whatever became of those before. A latency goes from the time at which the request was due to the last byte of its answer: waiting in line counts. The rates are shares of what the closed loop reached.")
		plot("latency", "Latency percentiles at constant rates")
		r.latencies(&b)
	}
	if len(r.Propagation) > 0 {
		p("## Propagation")
		first := r.Propagation[0]
		p("From the time a POST was due to the first GET that is answered with the new post, on each of %d readers, asked over and over with the ETag of the version before. Meanwhile %s reads/s went through the gateway.", first.Readers, Thousands(float64(first.Reads)))
		plot("propagation", "Distribution of the propagation time")
		r.propagations(&b)
	}
	if len(r.Bytes) > 0 {
		p("## Bytes saved by 304")
		p("A client reads posts over one connection. Some it has read before: it sends their ETag and is answered 304, without a body. Counted is everything on the connection, headers included, in both directions; the same posts were asked for in the same order without ETags for comparison.")
		r.revisits(&b)
	}
	if r.Memory != nil {
		p("## Memory and CPU of the readers")
		plot("memory", "Resident memory of each reader")
		r.memory(&b)
	}
	if f := r.Readers; f != nil {
		p("## A reader is killed, one is added")
		p("%s reads/s through the gateway while one of %d readers was killed (kill -9) and came back, and another was added.", Thousands(float64(f.Rate)), f.Readers)
		table(&b, 1, []string{"", "measured"}, [][]string{
			{"reads that failed", fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests)))},
			{"load spread over all again after the kill", since(f.KillBalance)},
			{"load spread over one more after it was asked for", since(f.AddBalance)},
			{"latency p50 / p99 / max", quantiles3(f.Latency)},
		})
		p("Spread means that each reader answers at least half of its fair share in every quarter of a second from then on. A reader that comes back loads all posts before it takes part.")
		failures(&b, f.Failures)
	}
	if f := r.Redis; f != nil {
		p("## Redis is killed")
		p("%s reads/s through the gateway while Redis was killed (kill -9) and came back.", Thousands(float64(f.Rate)))
		table(&b, 1, []string{"", "measured"}, [][]string{
			{"reads that failed", fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests)))},
			{"Redis did not answer for", Seconds(f.Down)},
			{"writes were taken again after", Seconds(f.Writes)},
			{"every reader was in step again after", Seconds(f.Converged)},
			{"latency p50 / p99 / max", quantiles3(f.Latency)},
		})
		failures(&b, f.Failures)
	}
	if len(r.Failovers) > 0 {
		f := r.Failovers[0]
		p("## Redis fails over")
		p("%s reads/s through the gateway and %d writes/s while the primary was killed (kill -9), and while `make failover` moved it.", Thousands(float64(f.Rate)), f.WriteRate)
		r.failovers(&b)
		p("\"No write\" is the longest time between two acknowledgements, \"in step\" the time until every reader served a write that was acknowledged after that. Each write has an id of its own; every acknowledged one was read back from Redis and from every reader, with its version and its content.")
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
		{"machine", fmt.Sprintf("%s, %d cores, %s, %s", cmp.Or(m.CPU, "unknown CPU"), m.Cores, cmp.Or(m.Memory, "memory not known"), cmp.Or(m.Kernel, "kernel not known"))},
		{"versions", fmt.Sprintf("%s, Redis %s, nginx %s, wrk %s", m.Go, cmp.Or(m.RedisVersion, "not known"), cmp.Or(m.NginxVersion, "not used"), cmp.Or(m.Wrk, "not known"))},
		{"commit", cmp.Or(m.Commit, "not known")},
		{"stack", fmt.Sprintf("%s: %s", m.Runtime, m.Stack)},
		{"posts", fmt.Sprintf("%s, %s; %.0f bytes on average, half of them at most %d", Thousands(float64(w.Posts)), w.Source, w.MeanBytes, w.MedianBytes)},
		{"reads", fmt.Sprintf("ids from Zipf(%v) over the posts: answers of %.0f bytes on average", load.Theta, w.ReadBytes)},
		{"closed loop", fmt.Sprintf("%d connections, %d of wrk's threads; rounds: %d of %s, in turn", w.Connections, w.Threads, w.Rounds, Seconds(w.Round.Seconds()))},
	})
	fmt.Fprintf(b, "The load generators, the readers, Redis and the gateway share the %d cores. Absolute figures are those of this machine under that load; ratios between lanes of the same round tell more.\n\n", m.Cores)
	for _, note := range r.Notes {
		fmt.Fprintf(b, "- %s\n", note)
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
}

// ratios compares the fast lane with each other one that was asked in the same way.
func (r *Report) ratios(b *strings.Builder, lanes []Lane) {
	var rows [][]string
	for _, fast := range lanes {
		if fast.Name != LaneFast {
			continue
		}
		for _, other := range lanes {
			if other.Via != fast.Via || other.Name == LaneFast {
				continue
			}
			cpu := "not known"
			if len(fast.CPU) > 0 && len(other.CPU) > 0 {
				cpu = times(measure.Ratio(fast.CPU, other.CPU))
			}
			rows = append(rows, []string{fast.Via, "/post against " + other.Name, times(measure.Ratio(fast.Rates, other.Rates)), cpu})
		}
	}
	table(b, 2, []string{"way", "ratio", "requests/s", "CPU a request"}, rows)
}

func times(s measure.Spread) string {
	if s.Rounds == 0 {
		return "not known"
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
			l.Via, l.Name, spread(l.Rates, Thousands), spread(l.P50, Seconds), spread(l.P99, Seconds), spread(l.CPU, Seconds), digits(Median(l.ClientCPU)),
		})
	}
	table(b, 2, []string{"way", "lane", "requests/s", "p50", "p99", "CPU a request", "wrk, cores"}, rows)
}

func (r *Report) latencies(b *strings.Builder) {
	var rows [][]string
	short := false
	for _, s := range r.Latency {
		rate := "--rate"
		if s.Share > 0 {
			rate = fmt.Sprintf("%.0f %% of %s/s", 100*s.Share, Thousands(s.Max))
		}
		row := []string{s.Via, rate, Thousands(float64(s.Rate)), Thousands(s.Reached)}
		if s.Sustained {
			for _, q := range [][]float64{s.P50, s.P90, s.P99, s.P999} {
				row = append(row, spread(q, Seconds))
			}
		} else {
			short = true
			row = append(row, "not sustained", "", "", "")
		}
		rows = append(rows, append(row, Seconds(s.Late), digits(s.ClientCPU)))
	}
	table(b, 2, []string{"way", "rate", "wanted/s", "sent/s", "p50", "p90", "p99", "p99.9", "sent late, p99", "client, cores"}, rows)
	if short {
		b.WriteString("*Not sustained*: load generator and servers together could not keep to the rate on these cores, so a latency would only tell how long the run was.\n\n")
	}
	b.WriteString("\"Sent late\" is how long after it was due a request was sent; it is part of the latency, and the load generator's share in it.\n\n")
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
		row("Redis alone: publish to delivered", digits(float64(f.Rate)), f.Quantiles)
	}
	table(b, 1, []string{"", "sent/s", "followed", "p50", "p99", "p99.9", "max"}, rows)
	b.WriteString("At higher rates a part of the writes is followed. The resolution is the time since a reader was asked in vain; a post was there by so much earlier at most. Measured (p50 / p99):")
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
		fmt.Fprintf(b, " Redis alone, with %d bytes, is the floor: at %d writes/s the whole way takes × %s of it (p50).", f.Bytes, half.Rate, digits(half.Everywhere.P50/f.P50))
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
	table(b, 1, []string{"revisits", "answered 304", "bytes a request", "with ETags", "saved", "saved, received alone"}, rows)
}

func (r *Report) memory(b *strings.Builder) {
	m := r.Memory
	var rows [][]string
	for _, v := range m.Readers {
		before, peak, each, cpu := "not known", "not known", "not known", "not known"
		if m.Loaded {
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
	table(b, 1, []string{"reader", "posts", "held", "before", "at most", "after", "bytes a post", "CPU of loading", "cores under load"}, rows)
	if m.Loaded {
		fmt.Fprintf(b, "%s posts were imported through the writer in %s, %s a second, while every reader followed. ", Thousands(float64(m.Posts)), Seconds(m.Seconds), Thousands(float64(m.Posts)/m.Seconds))
	}
	b.WriteString("Memory is resident memory by the process's own metrics. \"Cores under load\" is what a reader used while wrk asked all of them through the gateway; the last one is not behind it.\n\n")
}

func (r *Report) method(b *strings.Builder) {
	fmt.Fprintf(b, "## How to repeat it\n\n```sh\nmake start\n%s\n```\n\nThe closed loop is this, with the ids and the path in its environment:\n\n```sh\n%s\n```\n", r.Command, r.Workload.WrkCommand)
}

func since(seconds float64) string {
	if seconds < 0 {
		return "not seen"
	}
	return Seconds(seconds)
}

func quantiles3(q Quantiles) string {
	return fmt.Sprintf("%s / %s / %s", Seconds(q.P50), Seconds(q.P99), Seconds(q.Max))
}

func failures(b *strings.Builder, all []load.Failure) {
	for _, f := range all {
		fmt.Fprintf(b, "- failed %s after the beginning: %s\n", Seconds(f.At.Seconds()), f.Reason)
	}
	if len(all) > 0 {
		b.WriteByte('\n')
	}
}

func (r *Report) failovers(b *strings.Builder) {
	var rows [][]string
	for _, f := range r.Failovers {
		rows = append(rows, []string{
			f.Name(), f.From + " to " + f.To, Seconds(f.Out), Seconds(f.InStep),
			fmt.Sprintf("%d of %s", f.Failed, Thousands(float64(f.Requests))), fmt.Sprintf("%d of %s", f.Lost, Thousands(float64(f.Acknowledged))),
			Thousands(float64(f.Refused)), quantiles3(f.Latency),
		})
	}
	table(b, 2, []string{"", "primary", "no write for", "readers in step after", "reads failed", "writes lost", "writes refused", "reads p50 / p99 / max"}, rows)
}
