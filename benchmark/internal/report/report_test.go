package report

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
)

var update = flag.Bool("update", false, "write testdata/report.md anew")

// sample is a report of figures that are easy to compute with.
func sample() *Report {
	lane := func(name, via string, depth int, rate, cpu float64) Lane {
		return Lane{
			Name: name, Via: via, Depth: depth,
			Rates: []float64{rate, rate / 2, rate * 2}, CPU: []float64{cpu, cpu * 2, cpu / 2},
			P50: []float64{0.5e-3, 1e-3, 0.25e-3}, P99: []float64{2e-3, 4e-3, 1e-3}, ClientCPU: []float64{0.8, 0.7, 0.9},
		}
	}
	quantiles := func(scale float64) Quantiles {
		return Quantiles{P50: scale, P90: 2 * scale, P99: 3 * scale, P999: 4 * scale, Max: 5 * scale, Count: 1000}
	}
	cdf := func(scale float64) []measure.Point {
		return []measure.Point{{Value: scale, Share: 0.5}, {Value: 3 * scale, Share: 0.99}, {Value: 5 * scale, Share: 1}}
	}
	return &Report{
		Mode: "full", Command: "benchmark/run_benchmark.sh --full", Began: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Took: 14*time.Minute + 3*time.Second,
		Machine:  Machine{CPU: "A CPU", Kernel: "Linux 6.1 x86_64", Memory: "24.7 GB", Cores: 2, Go: "go1.26.8", RedisVersion: "7.0.15", NginxVersion: "1.22.1", Wrk: "4.1.0", Commit: "0123456789ab", Runtime: "local", Stack: "3 readers behind the gateway, and one that is asked directly"},
		Workload: Workload{Posts: 1_000_000, Source: "the 15256 texts of Debian's fortunes", MeanBytes: 330, MedianBytes: 258, ReadBytes: 314, Connections: 64, Threads: 1, Round: 8 * time.Second, Rounds: 3, Rate: 2000, WrkCommand: "wrk -t 1 -c 64 -d 8s -s wrk.lua http://127.0.0.1:8081/post"},
		Checked:  Checked{Statuses: 12_345_678, Bodies: 345_678},
		Notes:    []string{"Something could not be had."},
		Throughput: []Lane{
			lane(LaneFast, ViaDirect, 1, 100_000, 7.5e-6), lane(LaneStd, ViaDirect, 1, 50_000, 20e-6), lane(LaneNginx, ViaDirect, 1, 90_000, 7.5e-6),
			lane(LaneRedis, ViaDirect, 1, 20_000, 60e-6), lane(LaneFast, ViaGateway, 1, 15_000, 100e-6), lane(LaneRedis, ViaGateway, 1, 10_000, 150e-6),
		},
		Pipelined: []Lane{lane(LaneFast, ViaDirect, 16, 1_100_000, 0.7e-6), lane(LaneNginx, ViaDirect, 16, 110_000, 7e-6)},
		Latency: []Steady{
			{Via: ViaDirect, Share: 0.1, Max: 100_000, Rate: 10_000, Reached: 10_000, Sustained: true, P50: []float64{0.1e-3}, P90: []float64{0.2e-3}, P99: []float64{1e-3}, P999: []float64{3e-3}, Late: 0.2e-3, ClientCPU: 0.4},
			{Via: ViaGateway, Share: 0.5, Max: 15_000, Rate: 7_500, Reached: 7_499, Sustained: true, P50: []float64{0.5e-3}, P90: []float64{1e-3}, P99: []float64{4e-3}, P999: []float64{9e-3}, Late: 0.3e-3, ClientCPU: 0.6},
			{Via: ViaGateway, Share: 0.8, Max: 15_000, Rate: 12_000, Reached: 9_000, P50: []float64{0.2}, P90: []float64{0.3}, P99: []float64{0.4}, P999: []float64{0.5}, Late: 0.3, ClientCPU: 0.9},
		},
		Propagation: []Propagation{
			{Rate: 10, Reached: 10, Readers: 4, Reads: 2000, Everywhere: quantiles(1e-3), First: quantiles(0.8e-3), Resolution: quantiles(0.2e-3), CDF: cdf(1e-3)},
			{Rate: 200, Reached: 199.9, Readers: 4, Reads: 2000, Everywhere: quantiles(2e-3), First: quantiles(1e-3), Resolution: quantiles(0.3e-3), CDF: cdf(2e-3)},
		},
		Floor: &Floor{Rate: 200, Bytes: 330, Quantiles: quantiles(0.2e-3), CDF: cdf(0.2e-3)},
		Bytes: []Revisits{
			{Share: 0, Requests: 100, Plain: 60_000, Conditional: 60_000, PlainSent: 5_000, ConditionalSent: 5_000},
			{Share: 0.5, Requests: 100, NotModified: 50, Plain: 60_000, Conditional: 40_000, PlainSent: 5_000, ConditionalSent: 8_000},
		},
		Memory: &Memory{Posts: 1_000_000, Loaded: true, Seconds: 20, Readers: []ReaderMemory{
			{Name: "reader-1", Before: 30e6, Peak: 520e6, After: 510e6, Entries: 1_000_000, Bytes: 400e6, Complete: true, CPU: 3.5, Traffic: 0.2},
			{Name: "reader-direct", Before: 30e6, Peak: 530e6, After: 500e6, Entries: 1_000_000, Bytes: 400e6, Complete: true, CPU: 3.25},
		}},
		Readers: &ReaderFault{Rate: 2000, Requests: 30_000, Readers: 3, KillBalance: 2.25, AddBalance: -1, Latency: quantiles(1e-3)},
		Redis: &RedisFault{Rate: 2000, Requests: 10_000, Failed: 1, Failures: []load.Failure{{At: 1500 * time.Millisecond, Reason: "502 Bad Gateway"}},
			Down: 1.02, Writes: 1.03, Converged: 1.44, Latency: quantiles(1e-3)},
		Failovers: []Failover{
			{From: "redis-1", To: "redis-2", Rate: 2000, WriteRate: 200, Requests: 20_000, Out: 4.25, InStep: 5.25, Acknowledged: 1500, Refused: 700, Lost: 3, Latency: quantiles(1e-3)},
			{Planned: true, From: "redis-2", To: "redis-3", Rate: 2000, WriteRate: 200, Requests: 10_000, Failed: 1, Failures: []load.Failure{{At: 2500 * time.Millisecond, Reason: "504 Gateway Timeout"}}, Out: 1.15, InStep: 1.44, Acknowledged: 1000, Latency: quantiles(1e-3)},
		},
	}
}

func TestMarkdown(t *testing.T) {
	got := sample().Markdown("benchmark-report-")
	golden := filepath.Join("testdata", "report.md")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(gotLines), len(wantLines)) {
			if gotLines[i] != wantLines[i] {
				t.Fatalf("line %d is\n%s\nwant\n%s\n(-update writes it anew)", i+1, gotLines[i], wantLines[i])
			}
		}
		t.Fatalf("%d lines, want %d (-update writes it anew)", len(gotLines), len(wantLines))
	}
}

// A report of a run that was stopped at once has no empty sections and no plots.
func TestEmptyReport(t *testing.T) {
	r := &Report{Mode: "quick", Partial: "the run was stopped before its end"}
	text := r.Markdown("")
	for _, heading := range []string{"## Throughput", "## Latency", "## Memory", "![", "NaN", "%!"} {
		if strings.Contains(text, heading) {
			t.Errorf("%q is in a report of nothing", heading)
		}
	}
	if !strings.Contains(text, "**This report is partial: the run was stopped before its end.**") {
		t.Error("it does not say that it is partial")
	}
	if plots, err := r.Plots(); err != nil || len(plots) != 0 {
		t.Errorf("%d plots (%v)", len(plots), err)
	}
	for _, c := range r.Claims() {
		if c.Known || c.Holds {
			t.Errorf("%s is known without a measurement", c.Claim)
		}
	}
}

// Every claim follows from what was measured: it holds on one side of its limit only.
func TestClaims(t *testing.T) {
	holds := func(r *Report, i int) bool { return r.Claims()[i].Known && r.Claims()[i].Holds }
	for i, c := range []struct {
		name      string
		good, bad func(*Report)
	}{
		{"propagation", func(r *Report) { r.Propagation[1].Everywhere.P99 = 0.0999 }, func(r *Report) { r.Propagation[0].Everywhere.P99 = 0.1001 }},
		{"read", func(r *Report) { r.Latency[1].P99 = []float64{0.0049} }, func(r *Report) { r.Latency[1].P99 = []float64{0.0051} }},
		{"rate", func(r *Report) { r.Pipelined[0].Rates = []float64{1_000_001} }, func(r *Report) { r.Pipelined[0].Rates = []float64{999_999} }},
		{"memory", func(r *Report) { r.Memory.Readers[0].After = 549e6 }, func(r *Report) { r.Memory.Readers[1].After = 551e6 }},
		{"bytes", func(r *Report) { r.Bytes[1].Conditional = 43_999 }, func(r *Report) { r.Bytes[1].Conditional = 44_001 }},
		{"readers", func(r *Report) { r.Readers.Failed = 0 }, func(r *Report) { r.Readers.Failed = 1 }},
		{"redis", func(r *Report) { r.Redis.Failed = 0 }, func(r *Report) { r.Redis.Failed = 1 }},
		{"failover", func(r *Report) { r.Failovers[1].Failed = 0 }, func(r *Report) { r.Failovers[0].Failed = 1 }},
		{"planned", func(r *Report) { r.Failovers[0].Lost = 1 }, func(r *Report) { r.Failovers[1].Lost = 1 }},
	} {
		good, bad := sample(), sample()
		c.good(good)
		c.bad(bad)
		if !holds(good, i) {
			t.Errorf("%s: does not hold: %+v", c.name, good.Claims()[i])
		}
		if holds(bad, i) || !bad.Claims()[i].Known {
			t.Errorf("%s: holds: %+v", c.name, bad.Claims()[i])
		}
	}

	part := sample()
	part.Memory.Readers[0].Complete, part.Memory.Readers[0].After = false, 1e9
	if holds(part, 3) {
		t.Error("a reader that holds a part of the posts shows that all fit")
	}
	few := sample()
	few.Memory.Readers[0].Entries = 100_000
	if c := few.Claims()[3]; c.Known {
		t.Errorf("100,000 posts show what a million take: %+v", c)
	}
	// A rate that was not sustained shows nothing, good or bad.
	short := sample()
	short.Latency[1].Sustained = false
	if c := short.Claims()[1]; c.Holds {
		t.Errorf("no rate was sustained through the gateway: %+v", c)
	}
}

func TestBroken(t *testing.T) {
	r := sample()
	if got := r.Broken(); len(got) != 2 || !strings.Contains(got[0], "Redis is killed") || !strings.Contains(got[1], "Redis fails over") {
		t.Errorf("got %q", got)
	}
	r.Redis.Failed, r.Failovers[1].Failed, r.Failovers[1].Lost = 0, 0, 1
	if got := r.Broken(); len(got) != 1 || !strings.Contains(got[0], "planned failover") {
		t.Errorf("got %q", got)
	}
	r.Failovers[1].Lost = 0 // writes that a kill has lost are measured, not promised
	if got := r.Broken(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// A latency at a rate that was not sustained is not printed.
func TestNotSustained(t *testing.T) {
	text := sample().Markdown("")
	for line := range strings.Lines(text) {
		if strings.Contains(line, "80 % of 15,000/s") && (!strings.Contains(line, "not sustained") || strings.Contains(line, "400 ms")) {
			t.Errorf("got %s", line)
		}
	}
}

func TestPlots(t *testing.T) {
	r := sample()
	plots, err := r.Plots()
	if err != nil {
		t.Fatal(err)
	}
	text := r.Markdown("prefix-")
	for _, name := range []string{"throughput", "pipelining", "latency", "propagation", "memory"} {
		if !strings.Contains(text, "](prefix-"+name+".svg)") {
			t.Errorf("%s is not in the page", name)
		}
		dec := xml.NewDecoder(strings.NewReader(string(plots[name])))
		var words []string
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if chars, ok := token.(xml.CharData); ok {
				words = append(words, strings.TrimSpace(string(chars)))
			}
		}
		want := map[string]string{"throughput": "100,000/s", "pipelining": "1,100,000/s", "latency": "p99.9", "propagation": "Redis alone: publish to delivered", "memory": "reader-direct"}[name]
		if !slices.Contains(words, want) {
			t.Errorf("%s has the words %q, but not %q", name, words, want)
		}
	}
	if len(plots) != 5 {
		t.Errorf("%d plots", len(plots))
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Thousands(0), "0"}, {Thousands(999), "999"}, {Thousands(1000), "1,000"}, {Thousands(1234567.8), "1,234,568"}, {Thousands(-12345), "-12,345"}, {Thousands(999.6), "1,000"},
		{Seconds(0), "0"}, {Seconds(7.5e-6), "7.50 µs"}, {Seconds(123.4e-6), "123 µs"}, {Seconds(12.34e-3), "12.3 ms"}, {Seconds(1.5), "1.50 s"}, {Seconds(840), "840 s"},
		{spread([]float64{2, 1, 4}, Thousands), "2 (1–4)"}, {spread([]float64{2}, Thousands), "2"}, {spread(nil, Thousands), "not known"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestCopyHeadline(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	page := file("report.md", sample().Markdown(""))
	readme := file("README.md", "before\n"+headlineBegin+"\nstale\n"+headlineEnd+"\nafter\n")
	for range 2 { // the second time changes nothing
		if err := CopyHeadline(page, readme); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if !strings.HasPrefix(text, "before\n"+headlineBegin) || !strings.HasSuffix(text, headlineEnd+"\nafter\n") || strings.Contains(text, "stale") || strings.Count(text, "1,100,000 ") != 1 {
			t.Errorf("the README is now\n%s", text)
		}
	}
	if err := CopyHeadline(page, file("other.md", headlineEnd+headlineBegin)); err == nil {
		t.Error("a README without a block was written")
	}
	if err := CopyHeadline(filepath.Join(dir, "none.md"), readme); err == nil || !strings.Contains(err.Error(), "a run without --only") {
		t.Errorf("without a report: %v", err)
	}
}
