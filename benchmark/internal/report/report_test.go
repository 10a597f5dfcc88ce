package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/measure"
)

var update = flag.Bool("update", false, "update testdata/report.md")

// sample is a report with round numbers.
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
	timeline := func(event string) Timeline {
		r := &load.SteadyResult{Failed: []time.Duration{1500 * time.Millisecond}}
		for at := time.Duration(0); at < 4*time.Second; at += time.Millisecond {
			r.Served = append(r.Served, measure.Served{At: at, By: []string{"reader-1", "reader-2"}[int(at/time.Millisecond)%2]})
		}
		return NewTimeline(r, Event{At: 1.25, Name: event, Fault: true}, Event{At: 2.5, Name: "back"})
	}
	return &Report{
		Mode: "full", Command: "benchmark/run_benchmark.sh --full", Began: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Took: 14*time.Minute + 3*time.Second,
		Machine:  Machine{CPU: "A CPU", Kernel: "Linux 6.1 x86_64", Memory: "24.7 GB", Cores: 2, Go: "go1.26.8", RedisVersion: "7.0.15", NginxVersion: "1.22.1", Wrk: "4.1.0", Commit: "0123456789ab", Runtime: "local", Stack: "3 readers behind the gateway, and one that is accessed directly"},
		Workload: Workload{Posts: 1_000_000, Source: "the 15256 texts of Debian's fortunes", MeanBytes: 330, MedianBytes: 258, ReadBytes: 314, Connections: 64, Threads: 1, Round: 8 * time.Second, Rounds: 3, Rate: 2000, WrkCommand: "wrk -t 1 -c 64 -d 8s -s wrk.lua http://127.0.0.1:8081/post"},
		Checked:  Checked{Statuses: 12_345_678, Bodies: 345_678},
		Notes:    []string{"Something could not be measured."},
		Activity: []PartActivity{
			{Part: PartThroughput, Activity: machine.Activity{IdleBefore: 0.97, Others: 0.01, Steal: 0.02, Load: 3}, Repeated: true},
			{Part: PartPipelining, Activity: machine.Activity{IdleBefore: 0.97, Others: 0.4, Steal: 0, Load: 3}},
			{Part: PartBytes, Activity: machine.Activity{IdleBefore: machine.Unknown, Others: machine.Unknown, Steal: machine.Unknown, Load: machine.Unknown}},
		},
		Throughput: []Lane{
			lane(LaneFast, ViaDirect, 1, 100_000, 7.5e-6), lane(LaneStd, ViaDirect, 1, 50_000, 20e-6), lane(LaneNginx, ViaDirect, 1, 90_000, 7.5e-6),
			lane(LaneRedis, ViaDirect, 1, 20_000, 60e-6), lane(LaneFast, ViaGateway, 1, 15_000, 100e-6), lane(LaneRedis, ViaGateway, 1, 10_000, 150e-6),
		},
		Pipelined: []Lane{lane(LaneFast, ViaDirect, 16, 1_100_000, 0.7e-6), lane(LaneNginx, ViaDirect, 16, 110_000, 7e-6)},
		Latency: []Steady{
			{Via: ViaDirect, Rate: 1_000, Reached: 1_000, Sustained: true, P50: []float64{0.1e-3}, P90: []float64{0.2e-3}, P99: []float64{1e-3}, P999: []float64{3e-3}, Late: 0.2e-3, ClientCPU: 0.4},
			{Via: ViaDirect, Highest: true, Rate: 32_000, Reached: 32_000, Sustained: true, P50: []float64{0.2e-3}, P90: []float64{0.4e-3}, P99: []float64{4.5e-3}, P999: []float64{8e-3}, Late: 0.2e-3, ClientCPU: 0.9},
			{Via: ViaGateway, Rate: 1_000, Reached: 1_000, Sustained: true, P50: []float64{0.5e-3}, P90: []float64{1e-3}, P99: []float64{2e-3}, P999: []float64{6e-3}, Late: 0.3e-3, ClientCPU: 0.2},
			{Via: ViaGateway, Highest: true, Rate: 7_500, Reached: 7_499, Sustained: true, P50: []float64{0.5e-3}, P90: []float64{1e-3}, P99: []float64{4e-3}, P999: []float64{9e-3}, Late: 0.3e-3, ClientCPU: 0.6},
		},
		Propagation: []Propagation{
			{Rate: 10, Reached: 10, Readers: 4, Reads: 2000, Everywhere: quantiles(1e-3), First: quantiles(0.8e-3), Resolution: quantiles(0.2e-3), CDF: cdf(1e-3)},
			{Rate: 200, Reached: 199.9, Readers: 4, Reads: 2000, Everywhere: quantiles(2e-3), First: quantiles(1e-3), Resolution: quantiles(0.3e-3), CDF: cdf(2e-3)},
			{Rate: 1000, Reached: 999.9, Readers: 4, Reads: 2000, Everywhere: quantiles(3e-3), First: quantiles(2e-3), Resolution: quantiles(0.4e-3), CDF: cdf(3e-3)},
		},
		HighestWrites: []HighestWrites{{Bound: 0.1, Rate: 4000, P99: 80e-3}, {Bound: 0.01, Rate: 1000, P99: 9e-3}},
		Floor:         &Floor{Rate: 200, Bytes: 330, Quantiles: quantiles(0.2e-3), CDF: cdf(0.2e-3)},
		Bytes: []Revisits{
			{Share: 0, Requests: 100, Plain: 60_000, Conditional: 60_000, PlainSent: 5_000, ConditionalSent: 5_000},
			{Share: 0.5, Requests: 100, NotModified: 50, Plain: 60_000, Conditional: 40_000, PlainSent: 5_000, ConditionalSent: 8_000},
		},
		Memory: &Memory{Posts: 1_000_000, Imported: true, Seconds: 20, Readers: []ReaderMemory{
			{Name: "reader-1", Before: 30e6, Peak: 520e6, After: 510e6, Entries: 1_000_000, Bytes: 400e6, Complete: true, CPU: 3.5, Traffic: 0.2},
			{Name: "reader-direct", Before: 30e6, Peak: 530e6, After: 500e6, Entries: 1_000_000, Bytes: 400e6, Complete: true, CPU: 3.25},
		}},
		Own: &OwnCore{
			Pinned: true, Server: "0", Clients: "1", Posts: 1_000_000, Bytes: 253, Round: 2 * time.Second, Versions: map[string]string{LaneNginx: "1.22.1", ProxyHAProxy: "2.6.12"},
			Lanes: []Lane{
				lane(LaneFast, ViaDirect, 1, 110_000, 7.5e-6), lane(LaneFast, ViaDirect, 16, 1_200_000, 0.7e-6), lane(LaneNginx, ViaDirect, 1, 100_000, 8e-6), lane(LaneNginx, ViaDirect, 16, 110_000, 7e-6),
				lane(LaneZipf, ViaDirect, 16, 700_000, 1e-6), lane(LaneUpdated, ViaDirect, 1, 80_000, 8e-6), lane(LaneElsewhere, ViaDirect, 1, 90_000, 8e-6),
			},
			Shared:  []Lane{lane(LaneFast, ViaDirect, 16, 600_000, 1.7e-6)},
			Proxies: []Lane{lane(ProxyGateway, ViaGateway, 1, 40_000, 20e-6), lane(ProxyNginx, ViaGateway, 1, 45_000, 15e-6)},
		},
		Million: &Million{
			Posts: 1_000_000, Bytes: 259, Imported: 130_000, Starts: []float64{300_000, 310_000, 290_000}, Scans: []float64{400_000, 410_000, 390_000},
			StartPeak: 380e6, Peak: 390e6, Idle: 10_000, IdleBytes: 54e6,
			Updates: []Updates{{Rate: 1000, Written: 15_000, Reads: 40_000, Lags: []float64{0, 3, 1}, Collections: 10, Pauses: quantiles(0.1e-3), Collector: 0.008}},
		},
		UpdateCost: &UpdateCost{
			Rate: 1000, Reads: 2000, Redis: []float64{160e-6, 170e-6, 150e-6}, Writer: []float64{110e-6, 120e-6, 115e-6}, Reader: []float64{38e-6, 40e-6, 39e-6},
			Delivered: []Quantiles{quantiles(80e-6)}, Stored: []Quantiles{quantiles(250e-6)}, Visible: []Quantiles{quantiles(400e-6)},
			Beside: []Quantiles{quantiles(1e-3)}, BesideReads: []Quantiles{quantiles(0.4e-3)}, BesideRates: []float64{784},
		},
		Fanout: &Fanout{Readers: 2, Capacity: &Capacity{Pinned: true, Server: "0", Clients: "1", InFlight: 64, Bytes: 317, Points: []CapacityPoint{
			{Subscribers: 3, Full: CapacityLoad{25_000, 0.7, 0.7, 28e-6, quantiles(2e-3)}, Part: CapacityLoad{17_500, 0.5, 0.5, 28.6e-6, quantiles(0.5e-3)}},
			{Subscribers: 100, Full: CapacityLoad{14_000, 0.98, 0.99, 70e-6, quantiles(4e-3)}, Part: CapacityLoad{9_800, 0.9, 0.9, 92e-6, quantiles(1e-3)}},
			{Subscribers: 1000, Full: CapacityLoad{1_560, 0.81, 0.99, 520e-6, quantiles(30e-3)}, Part: CapacityLoad{1_092, 0.76, 0.95, 700e-6, quantiles(8e-3)}},
		}}, Points: []FanoutPoint{
			{Rate: 1000, Reached: 1000, Primary: 67e-6},
			{Rate: 1000, Reached: 1000, Subscribers: 20, Primary: 87e-6, Delay: quantiles(0.8e-3)}, {Rate: 1000, Reached: 990, Subscribers: 400, Primary: 467e-6, Delay: quantiles(1.2e-3)},
			{Rate: 1000, Reached: 1000, Subscribers: 20, Relays: 2, Primary: 81e-6, Relay: 40e-6, Delay: quantiles(1.1e-3)}, {Rate: 1000, Reached: 1000, Subscribers: 400, Relays: 2, Primary: 81e-6, Relay: 230e-6, Delay: quantiles(1.3e-3)},
		}},
		Readers: &ReaderFault{Rate: 2000, Requests: 30_000, Readers: 3, KillBalance: 2.25, AddBalance: -1, Latency: quantiles(1e-3), Timeline: timeline("reader-1 is killed")},
		Redis: &RedisFault{Rate: 2000, Requests: 10_000, Failed: 1, Failures: []load.Failure{{At: 1500 * time.Millisecond, Reason: "502 Bad Gateway"}},
			Down: 1.02, Writes: 1.03, Converged: 1.44, Latency: quantiles(1e-3), Timeline: timeline("Redis is killed")},
		Failovers: []Failover{
			{From: "redis-1", To: "redis-2", Rate: 2000, WriteRate: 200, Requests: 20_000, Out: 4.25, InSync: 5.25, Acknowledged: 1500, Refused: 700, Lost: 3, Latency: quantiles(1e-3)},
			{Planned: true, From: "redis-2", To: "redis-3", Rate: 2000, WriteRate: 200, Requests: 10_000, Failed: 1, Failures: []load.Failure{{At: 2500 * time.Millisecond, Reason: "504 Gateway Timeout"}}, Out: 1.15, InSync: 1.44, Acknowledged: 1000, Latency: quantiles(1e-3)},
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
				t.Fatalf("line %d is\n%s\nwant\n%s\n(-update rewrites it)", i+1, gotLines[i], wantLines[i])
			}
		}
		t.Fatalf("%d lines, want %d (-update rewrites it)", len(gotLines), len(wantLines))
	}
}

// A report of a run that was stopped at once has no empty sections and no plots.
func TestEmptyReport(t *testing.T) {
	r := &Report{Mode: "quick", Partial: "the run was stopped before its end"}
	text := r.Markdown("")
	for _, heading := range []string{"## Throughput", "## One reader", "## Latency", "## Memory", "![", "NaN", "%!"} {
		if strings.Contains(text, heading) {
			t.Errorf("%q is in an empty report", heading)
		}
	}
	if !strings.Contains(text, "**This report is partial: the run was stopped before its end.**") {
		t.Error("the report does not say that it is partial")
	}
	if plots, err := r.Plots(); err != nil || len(plots) != 0 {
		t.Errorf("%d plots (%v)", len(plots), err)
	}
	for _, c := range r.Claims() {
		if c.Verdict != NotMeasured {
			t.Errorf("%s is %s without a measurement", c.Claim, c.Verdict)
		}
	}
}

// Every claim is yes on one side of its limit and no on the other one, and inconclusive on both when the machine
// was busy during one of its parts.
func TestClaims(t *testing.T) {
	for i, c := range []struct {
		name, part string
		good, bad  func(*Report)
	}{
		{"rate", PartLanes, func(r *Report) { r.Own.Lanes[1].Rates = []float64{1_000_001} }, func(r *Report) { r.Own.Lanes[1].Rates = []float64{1_000_000} }},
		{"direct read", PartLatency, func(r *Report) { r.Latency[1].Rate = 1000 }, func(r *Report) { r.Latency[1].Rate = 999 }},
		{"read", PartLatency, func(r *Report) { r.Latency[3].Rate = 1000 }, func(r *Report) { r.Latency[3].Rate = 0 }},
		{"propagation", PartPropagation, func(r *Report) { r.HighestWrites[0].Rate, r.HighestWrites[1].Rate = 1000, 0 }, func(r *Report) { r.HighestWrites[0].Rate = 999 }},
		{"memory", PartMemory, func(r *Report) { r.Memory.Readers[0].Peak = 550e6 }, func(r *Report) { r.Memory.Readers[1].Peak = 551e6 }},
		{"memory of small posts", PartMillion, func(r *Report) { r.Million.Peak = 550e6 }, func(r *Report) { r.Million.Peak = 551e6 }},
		{"bytes", PartBytes, func(r *Report) { r.Bytes[1].Conditional = 43_999 }, func(r *Report) { r.Bytes[1].Conditional = 44_001 }},
		{"faults", PartReaders, func(r *Report) {}, func(r *Report) { r.Readers.Failed = 1 }},
		{"planned", PartFailover, func(r *Report) { r.Failovers[0].Lost = 1 }, func(r *Report) { r.Failovers[1].Lost = 1 }},
	} {
		for verdict, change := range map[Verdict]func(*Report){Yes: c.good, No: c.bad} {
			r := sample()
			r.Redis.Failed, r.Failovers[1].Failed = 0, 0
			change(r)
			if got := r.Claims()[i]; got.Verdict != verdict || got.Setting == "" || got.Measured == "" {
				t.Errorf("%s: got %+v, want %s", c.name, got, verdict)
			}
			r.Activity = append(r.Activity, PartActivity{Part: c.part, Activity: machine.Activity{IdleBefore: 1, Others: 0.3}})
			if got := r.Claims()[i]; got.Verdict != Inconclusive || !strings.Contains(got.Measured, "machine busy: other processes used 30 %") {
				t.Errorf("%s on a busy machine: got %+v, want inconclusive instead of %s", c.name, got, verdict)
			}
		}
	}
}

// A claim is not measured when the measurements do not cover it.
func TestClaimsNotMeasured(t *testing.T) {
	for name, c := range map[string]struct {
		claim  int
		change func(*Report)
	}{
		"fewer than a million posts":       {4, func(r *Report) { r.Memory.Posts = 999_999 }},
		"fewer than a million small posts": {5, func(r *Report) { r.Million.Posts = 999_999 }},
		"no search for the highest rate":   {1, func(r *Report) { r.Latency = r.Latency[:1] }},
		"only kills of the primary":        {8, func(r *Report) { r.Failovers = r.Failovers[:1] }},
	} {
		r := sample()
		c.change(r)
		if got := r.Claims()[c.claim]; got.Verdict != NotMeasured {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	for name, change := range map[string]func(*ReaderMemory){
		"a reader that is not complete": func(m *ReaderMemory) { m.Complete = false },
		"a reader without all posts":    func(m *ReaderMemory) { m.Entries = 917_049 },
	} {
		r := sample()
		change(&r.Memory.Readers[0])
		if got := r.Claims()[4]; got.Verdict != No {
			t.Errorf("%s: got %+v, want no", name, got)
		}
	}
}

// The claim about faults adds up the reads of all of them, and each kind of fault can make it inconclusive.
func TestFaultsClaim(t *testing.T) {
	if got := sample().Claims()[7]; !strings.Contains(got.Measured, "2 of 70,000 reads failed") || got.Verdict != No {
		t.Errorf("got %+v, want the total", got)
	}
	for _, part := range []string{PartReaders, PartRedis, PartFailover} {
		r := sample()
		r.Activity = []PartActivity{{Part: part, Activity: machine.Activity{Steal: 0.2, IdleBefore: 1}}}
		if got := r.Claims()[7]; got.Verdict != Inconclusive {
			t.Errorf("%s on a busy machine: got %+v", part, got)
		}
	}
}

func TestSetting(t *testing.T) {
	r := sample()
	if got := r.Claims()[0].Setting; !strings.Contains(got, "a core of its own (server on core 0, load generator on core 1)") || !strings.Contains(got, "16 requests in flight") {
		t.Errorf("got %q", got)
	}
	r.Own.Pinned = false
	if got := r.Claims()[0].Setting; strings.Contains(got, "its own") || !strings.Contains(got, "shared with the load generator") {
		t.Errorf("on one core: got %q", got)
	}
}

// A broken promise counts even when the machine was busy.
func TestBroken(t *testing.T) {
	r := sample()
	r.Activity = []PartActivity{{Part: PartRedis, Activity: machine.Activity{Others: 0.9}}}
	if got := r.Broken(); len(got) != 2 || !strings.Contains(got[0], "Redis was killed: 1 of 10000 reads failed, the first one with 502 Bad Gateway") || !strings.Contains(got[1], "planned failover") {
		t.Errorf("got %q", got)
	}
	r.Redis.Failed, r.Failovers[1].Failed, r.Failovers[1].Lost = 0, 0, 1
	if got := r.Broken(); len(got) != 1 || !strings.Contains(got[0], "1 of 1000 acknowledged writes were lost") {
		t.Errorf("got %q", got)
	}
	r.Failovers[1].Lost = 0 // writes that a kill loses are measured, not promised
	if got := r.Broken(); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestTimeline(t *testing.T) {
	r := &load.SteadyResult{
		Served: []measure.Served{{At: 0, By: "b"}, {At: 249 * time.Millisecond, By: "a"}, {At: 250 * time.Millisecond, By: "b"}, {At: 600 * time.Millisecond, By: "b"}},
		Failed: []time.Duration{300 * time.Millisecond, 1100 * time.Millisecond},
	}
	tl := NewTimeline(r, Event{Name: "x"})
	if !slices.Equal(tl.Readers, []string{"a", "b"}) || !slices.Equal(tl.Answered[0], []int{1, 0, 0, 0, 0}) || !slices.Equal(tl.Answered[1], []int{1, 1, 1, 0, 0}) || !slices.Equal(tl.Failed, []int{0, 1, 0, 0, 1}) || len(tl.Events) != 1 {
		t.Errorf("got %+v", tl)
	}
	if empty := NewTimeline(&load.SteadyResult{}); len(empty.Failed) != 1 {
		t.Errorf("without an answer: %+v", empty)
	}
}

// No latency is printed for a rate that was not sustained or not found.
func TestNotSustained(t *testing.T) {
	r := sample()
	r.Latency[0].Sustained = false
	r.Latency[3] = Steady{Via: ViaGateway, Highest: true}
	text := r.Markdown("")
	for _, want := range []string{"| direct  | given                       |    1,000 |  1,000 | not sustained", "| gateway | highest with p99 < 5.00 ms |     none"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if _, err := r.Plots(); err != nil {
		t.Error(err)
	}
}

// Every plot is on the page, is well-formed, and does not depend on the fonts of the machine.
func TestPlots(t *testing.T) {
	r := sample()
	plots, err := r.Plots()
	if err != nil {
		t.Fatal(err)
	}
	text := r.Markdown("prefix-")
	want := []string{"latency", "memory", "own", "pipelining", "propagation", "proxies", "story", "throughput"}
	if got := slices.Sorted(maps.Keys(plots)); !slices.Equal(got, want) {
		t.Fatalf("got the plots %q, want %q", got, want)
	}
	for name, svg := range plots {
		if !strings.Contains(text, "](prefix-"+name+".svg)") {
			t.Errorf("%s is not on the page", name)
		}
		dec := xml.NewDecoder(bytes.NewReader(svg))
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "text" {
				t.Errorf("%s has text that is not a path", name)
			}
		}
		if strings.Contains(string(svg), "font-family") {
			t.Errorf("%s names a font", name)
		}
	}
}

// Every colour of a plot has a counterpart on a dark page, and black, which the canvas leaves out, is not used.
func TestDarkPage(t *testing.T) {
	plots, err := sample().Plots()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range shades {
		known[hex(s.light)] = true
	}
	for name, svg := range plots {
		_, drawing, _ := strings.Cut(string(svg), "</style>")
		colors := regexp.MustCompile(`(?:fill|stroke):(#[0-9A-F]{6})`).FindAllStringSubmatch(drawing, -1)
		if len(colors) < 10 {
			t.Errorf("%s has %d colours", name, len(colors))
		}
		for _, c := range colors {
			if !known[c[1]] {
				t.Errorf("%s uses %s, which does not change on a dark page", name, c[1])
			}
		}
		for path := range strings.SplitSeq(drawing, "<path") {
			if strings.HasPrefix(path, " d=") && !strings.Contains(path, "fill:") && !strings.Contains(path, "stroke:") {
				t.Errorf("%s has a black path: %.100s", name, path)
			}
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Thousands(0), "0"}, {Thousands(999), "999"}, {Thousands(1000), "1,000"}, {Thousands(1234567.8), "1,234,568"}, {Thousands(-12345), "-12,345"}, {Thousands(999.6), "1,000"},
		{Seconds(0), "0"}, {Seconds(7.5e-6), "7.50 µs"}, {Seconds(123.4e-6), "123 µs"}, {Seconds(12.34e-3), "12.3 ms"}, {Seconds(1.5), "1.50 s"}, {Seconds(840), "840 s"},
		{spread([]float64{2, 1, 4}, Thousands), "2 (1–4)"}, {spread([]float64{2}, Thousands), "2"}, {spread(nil, Thousands), "unknown"},
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
	page := file("report.md", sample().Markdown("report-"))
	readme := file("README.md", "before\n"+headlineBegin+"\nstale\n"+headlineEnd+"\nafter\n")
	for range 2 { // the second time changes nothing
		if err := CopyHeadline(page, readme, "folder"); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if !strings.HasPrefix(text, "before\n"+headlineBegin) || !strings.HasSuffix(text, headlineEnd+"\nafter\n") || strings.Contains(text, "stale") || strings.Count(text, "1,200,000 ") != 1 || strings.Count(text, "](folder/report-story.svg)") != 1 {
			t.Errorf("the README is now\n%s", text)
		}
	}
	if err := CopyHeadline(page, file("other.md", headlineEnd+headlineBegin), "folder"); err == nil {
		t.Error("a README without a block was written")
	}
	if err := CopyHeadline(filepath.Join(dir, "none.md"), readme, "folder"); err == nil {
		t.Error("a report that does not exist was copied")
	}
}

// The README has the table of the committed report.
func TestReadmeHasTheReportsTable(t *testing.T) {
	page, err := os.ReadFile("../../benchmark-report.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := headline(string(page), "benchmark")
	if err != nil {
		t.Fatal(err)
	}
	if _, got, _, err := cutBlock(string(readme)); err != nil || got != want {
		t.Errorf("the README has another table than the report (%v); `benchmark/run_benchmark.sh --full --publish` writes both. README:\n%s\nreport:\n%s", err, got, want)
	}
}
