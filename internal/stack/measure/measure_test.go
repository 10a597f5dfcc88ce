package measure

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

const readerMetrics = `
# TYPE http_requests_total counter
http_requests_total{route="/post",method="get",code="200"} 90
http_requests_total{route="/post",method="get",code="304"} 10
http_requests_total{route="/post-redis",method="get",code="503"} 4
http_requests_total{route="/status",method="get",code="200"} 1000
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{route="/post",le="0.001"} 50
http_request_duration_seconds_bucket{route="/post",le="0.01"} 100
http_request_duration_seconds_bucket{route="/post",le="+Inf"} 100
http_request_duration_seconds_sum{route="/post"} 1
http_request_duration_seconds_count{route="/post"} 100
http_request_duration_seconds_bucket{route="/post-redis",le="0.001"} 0
http_request_duration_seconds_bucket{route="/post-redis",le="0.01"} 4
http_request_duration_seconds_bucket{route="/post-redis",le="+Inf"} 4
http_request_duration_seconds_sum{route="/post-redis"} 1
http_request_duration_seconds_count{route="/post-redis"} 4
# TYPE cache_fallbacks_total counter
cache_fallbacks_total{result="found"} 3
cache_fallbacks_total{result="absent"} 2
# TYPE cache_entries gauge
cache_entries 123456
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e+09
`

func TestParseSample(t *testing.T) {
	s, err := parseSample(strings.NewReader(readerMetrics), "reader")
	if err != nil {
		t.Fatal(err)
	}
	wantCounters := map[string]float64{"reads": 104, "not_modified": 10, "errors": 4, "hits": 0, "misses": 0, "fallbacks": 5, "snapshots": 0, "catchups": 0}
	if !reflect.DeepEqual(s.counters, wantCounters) {
		t.Errorf("counters %v, want %v", s.counters, wantCounters)
	}
	if want := map[string]float64{"entries": 123456}; !reflect.DeepEqual(s.gauges, want) {
		t.Errorf("gauges %v, want %v", s.gauges, want)
	}
	if h := s.histograms[""]; h.total() != 104 || h.counts[0] != 50 {
		t.Errorf("histogram %+v, want both routes together", h)
	}
	if s.started != 1.7e9 {
		t.Errorf("started %v", s.started)
	}
	if _, err := parseSample(strings.NewReader("<html>"), "reader"); err == nil {
		t.Error("a page without metrics was parsed as metrics")
	}
}

func TestGatewayLatencyIsInSeconds(t *testing.T) {
	s, err := parseSample(strings.NewReader(`
# TYPE apisix_http_latency histogram
apisix_http_latency_bucket{type="request",route="post",le="2"} 10
apisix_http_latency_bucket{type="request",route="post",le="+Inf"} 10
apisix_http_latency_sum{type="request",route="post"} 1
apisix_http_latency_count{type="request",route="post"} 10
apisix_http_latency_bucket{type="upstream",route="post",le="2"} 99
apisix_http_latency_bucket{type="upstream",route="post",le="+Inf"} 99
apisix_http_latency_sum{type="upstream",route="post"} 1
apisix_http_latency_count{type="upstream",route="post"} 99
`), "gateway")
	if err != nil {
		t.Fatal(err)
	}
	if h := s.histograms[""]; h.total() != 10 || h.bounds[0] != 0.002 {
		t.Errorf("histogram %+v, want 10 requests up to 2 ms", h)
	}
}

func hist(counts ...float64) histogram {
	return histogram{bounds: []float64{1, 2, 4, math.Inf(1)}, counts: counts}
}

func TestQuantile(t *testing.T) {
	tests := []struct {
		name string
		h    histogram
		q    float64
		want float64
		none bool
	}{
		{"nothing observed", hist(0, 0, 0, 0), 0.5, 0, true},
		{"no histogram", histogram{}, 0.5, 0, true},
		{"middle of the first bucket", hist(10, 10, 10, 10), 0.5, 0.5, false},
		{"spread inside a bucket", hist(0, 10, 10, 10), 0.5, 1.5, false},
		{"over two buckets", hist(50, 100, 100, 100), 0.75, 1.5, false},
		{"99th in the third", hist(90, 98, 100, 100), 0.99, 3, false},
		{"above all bounds", hist(0, 0, 0, 5), 0.99, 4, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := tt.h.quantile(tt.q)
			if ok == tt.none || math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("%v %v, want %v", got, ok, tt.want)
			}
		})
	}
}

func TestHistogramSince(t *testing.T) {
	tests := []struct {
		name       string
		then, now  histogram
		wantCounts []float64
	}{
		{"growth", hist(1, 2, 3, 4), hist(2, 4, 6, 8), []float64{1, 2, 3, 4}},
		{"nothing new", hist(1, 2, 3, 4), hist(1, 2, 3, 4), []float64{0, 0, 0, 0}},
		{"began anew", hist(10, 20, 30, 40), hist(1, 2, 3, 4), []float64{1, 2, 3, 4}},
		{"first", histogram{}, hist(1, 2, 3, 4), []float64{1, 2, 3, 4}},
		{"other bounds", histogram{bounds: []float64{math.Inf(1)}, counts: []float64{1}}, hist(1, 2, 3, 4), []float64{1, 2, 3, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.now.since(tt.then).counts; !reflect.DeepEqual(got, tt.wantCounts) {
				t.Errorf("%v, want %v", got, tt.wantCounts)
			}
		})
	}
}

func TestTrackRates(t *testing.T) {
	at := time.Unix(1000, 0)
	mk := func(started, reads, notModified float64) sample {
		return sample{
			started:  started,
			counters: map[string]float64{"reads": reads, "not_modified": notModified},
			gauges:   map[string]float64{"entries": 7},
		}
	}
	steps := []struct {
		name  string
		after time.Duration
		s     sample
		want  Values
	}{
		{"first scrape has no rates", 0, mk(1, 1000, 0), Values{"entries": 7}},
		{"one second", time.Second, mk(1, 1100, 25), Values{"entries": 7, "reads": 100, "not_modified": 25, "not_modified_share": 0.25}},
		{"two seconds", 2 * time.Second, mk(1, 1200, 25), Values{"entries": 7, "reads": 50, "not_modified": 0, "not_modified_share": 0}},
		{"idle: no share of nothing", time.Second, mk(1, 1200, 25), Values{"entries": 7, "reads": 0, "not_modified": 0}},
		{"restarted: lower", time.Second, mk(2, 30, 3), Values{"entries": 7, "reads": 30, "not_modified": 3, "not_modified_share": 0.1}},
		{"restarted: higher than before", time.Second, mk(3, 5000, 500), Values{"entries": 7, "reads": 5000, "not_modified": 500, "not_modified_share": 0.1}},
		{"counter set back without a restart", time.Second, mk(3, 10, 0), Values{"entries": 7, "reads": 10, "not_modified": 0, "not_modified_share": 0}},
	}
	var tr track
	for _, step := range steps {
		at = at.Add(step.after)
		if got := tr.add(at, step.s, 0); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}

// APISIX updates its metrics every five seconds. Between two updates there are no scrapes without reads, and an update has
// no peak.
func TestTrackOfARefresh(t *testing.T) {
	const refresh = 5 * time.Second
	at := time.Unix(1000, 0)
	var tr track
	for i, step := range []struct {
		reads float64
		h     histogram
		want  string // reads per second and p50
	}{
		{1000, hist(0, 0, 0, 0), "- -"}, // the first scrape
		{1500, hist(500, 500, 500, 500), "100 0.5"}, {1500, hist(500, 500, 500, 500), "100 0.5"}, {1500, hist(500, 500, 500, 500), "100 0.5"},
		{1500, hist(500, 500, 500, 500), "100 0.5"}, {1500, hist(500, 500, 500, 500), "100 0.5"},
		{1500, hist(500, 500, 500, 500), "100 0.5"}, // the update is late
		{1750, hist(500, 750, 750, 750), "50 1.5"},  // quantiles are those of one refresh
		{1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"},
		{1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"},
		{1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"}, {1750, hist(500, 750, 750, 750), "50 1.5"},
		{1750, hist(500, 750, 750, 750), "0 -"}, // no update for two refreshes
		{1750, hist(500, 750, 750, 750), "0 -"},
		{1760, hist(510, 760, 760, 760), "2 0.5"}, // some of the five seconds before it
	} {
		at = at.Add(time.Second)
		got := tr.add(at, sample{started: 1, counters: map[string]float64{"reads": step.reads}, histograms: map[string]histogram{"": step.h}}, refresh)
		text := func(name string) string {
			if v, ok := got[name]; ok {
				return fmt.Sprint(v)
			}
			return "-"
		}
		if values := text("reads") + " " + text("p50"); values != step.want {
			t.Errorf("scrape %d: %s, want %s", i, values, step.want)
		}
	}
}

// What the caller itself requested is no traffic, and its durations are not the clients'.
func TestOwnRequestsAreNotCounted(t *testing.T) {
	at := time.Unix(1000, 0)
	var tr track
	add := func(reads, own float64, h histogram) Values {
		at = at.Add(time.Second)
		return tr.add(at, sample{
			started: 1, counters: map[string]float64{"reads": reads}, own: map[string]float64{"reads": own},
			histograms: map[string]histogram{"": h},
		}, 0)
	}
	add(100, 100, hist(100, 100, 100, 100))
	if got := add(160, 150, hist(160, 160, 160, 160)); got["reads"] != 10 {
		t.Errorf("%v, want 10 reads per second", got)
	} else if _, ok := got["p50"]; ok {
		t.Errorf("%v has a latency of the caller's own requests", got)
	}
	if got := add(180, 150, hist(160, 180, 180, 180)); got["reads"] != 20 || got["p50"] != 1.5 {
		t.Errorf("%v, want 20 reads per second and a median of 1.5", got)
	}
	if got := add(181, 160, hist(160, 181, 181, 181)); got["reads"] != 0 {
		t.Errorf("%v, want no reads: a request can be counted by the caller first", got)
	}
}

func TestTrackQuantilesForgetAfterTheWindow(t *testing.T) {
	at := time.Unix(1000, 0)
	var tr track
	slow := hist(0, 0, 100, 100) // all observations are between 2 and 4
	tr.add(at, sample{started: 1, histograms: map[string]histogram{"propagation": hist(0, 0, 0, 0)}}, 0)
	for i := 1; i <= quantileWindow+1; i++ {
		at = at.Add(time.Second)
		got := tr.add(at, sample{started: 1, histograms: map[string]histogram{"propagation": slow}}, 0)
		v, ok := got["propagation_p50"]
		if inside := i <= quantileWindow; ok != inside || inside && v != 3 {
			t.Errorf("scrape %d after the slow one: p50 %v %v", i, v, ok)
		}
	}
	// A new process starts with a clean window.
	tr.add(at.Add(time.Second), sample{started: 1, histograms: map[string]histogram{"propagation": hist(0, 0, 200, 200)}}, 0)
	got := tr.add(at.Add(2*time.Second), sample{started: 2, histograms: map[string]histogram{"propagation": hist(10, 10, 10, 10)}}, 0)
	if v := got["propagation_p50"]; v != 0.5 {
		t.Errorf("p50 of the new process %v, want 0.5", v)
	}
}

func TestRound(t *testing.T) {
	for in, want := range map[float64]string{
		0: "0", 1: "1", 123456: "123500", 0.000123456: "0.0001235", 99.999: "100", 0.1: "0.1", 1234.5: "1235", math.Inf(1): "0", math.NaN(): "0",
	} {
		if got := fmt.Sprint(round(in)); got != want {
			t.Errorf("round(%v) = %s, want %s", in, got, want)
		}
	}
}
