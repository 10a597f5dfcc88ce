package measure

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"heavy-read-api/internal/stack/state"
)

// sample holds the values of one scrape of one process, under the short names of the sources below.
type sample struct {
	started    float64 // when the process started, Unix seconds
	counters   map[string]float64
	gauges     map[string]float64
	histograms map[string]histogram
	own        map[string]float64 // part of the counters that is the collector's own requests; see Collector.Own
}

// source defines the value of a name: the sum over the series of a family that match.
type source struct {
	role   string // role of the processes that have the family
	name   string
	family string
	match  func(labels map[string]string) bool // nil takes every series
	scale  float64                             // factor from the unit of the family to ours; 0 means 1
}

func label(name, value string) func(map[string]string) bool {
	return func(l map[string]string) bool { return l[name] == value }
}

func prefix(name, value string) func(map[string]string) bool {
	return func(l map[string]string) bool { return strings.HasPrefix(l[name], value) }
}

func either(name string, values ...string) func(map[string]string) bool {
	return func(l map[string]string) bool { return slices.Contains(values, l[name]) }
}

func both(a, b func(map[string]string) bool) func(map[string]string) bool {
	return func(l map[string]string) bool { return a(l) && b(l) }
}

// The sources by role. A read is a request for /post, /post-redis or /post-marshal.
var (
	readRoute = prefix("route", "/post")
	viaRoute  = prefix("route", "post") // routes of the gateway

	counterSources = []source{
		{role: state.Reader, name: "reads", family: "http_requests_total", match: readRoute},
		{role: state.Reader, name: "not_modified", family: "http_requests_total", match: both(readRoute, label("code", "304"))},
		{role: state.Reader, name: "errors", family: "http_requests_total", match: both(readRoute, prefix("code", "5"))},
		{role: state.Reader, name: "hits", family: "cache_hits_total"},
		{role: state.Reader, name: "misses", family: "cache_misses_total"},
		{role: state.Reader, name: "fallbacks", family: "cache_fallbacks_total"},
		{role: state.Gateway, name: "reads", family: "apisix_http_status", match: viaRoute},
		{role: state.Gateway, name: "not_modified", family: "apisix_http_status", match: both(viaRoute, label("code", "304"))},
		{role: state.Gateway, name: "errors", family: "apisix_http_status", match: both(viaRoute, prefix("code", "5"))},
		{role: state.Reader, name: "snapshots", family: "cache_snapshots_total"},
		{role: state.Reader, name: "catchups", family: "cache_catchups_total"},
		{role: state.Writer, name: "writes", family: "writer_writes_total", match: label("outcome", "ok")},
		{role: state.Writer, name: "writes", family: "writer_import_lines_total", match: either("outcome", "created", "replaced")},
		{role: state.Writer, name: "failed_writes", family: "writer_writes_total", match: either("outcome", "unavailable", "unknown")},
		{role: state.Load, name: "reads", family: "load_reads_total"},
		{role: state.Load, name: "failed", family: "load_reads_total", match: either("result", "server_error", "no_answer", "missing", "wrong")},
		// Failures that no server has counted as a 5xx.
		{role: state.Load, name: "lost", family: "load_reads_total", match: either("result", "no_answer", "missing", "wrong")},
		{role: state.Load, name: "writes", family: "load_writes_total"},
		{role: state.Load, name: "failed_writes", family: "load_writes_total", match: label("result", "failed")},
	}
	gaugeSources = []source{
		{role: state.Reader, name: "ready", family: "cache_ready"},
		{role: state.Reader, name: "synced", family: "cache_synced"},
		{role: state.Reader, name: "subscribed", family: "cache_subscribed"},
		{role: state.Reader, name: "entries", family: "cache_entries"},
		{role: state.Reader, name: "cache_bytes", family: "cache_bytes"},
		{role: state.Reader, name: "version", family: "cache_applied_version"},
		{role: state.Reader, name: "lag", family: "cache_lag_versions"},
		{role: state.Reader, name: "lag_seconds", family: "cache_lag_seconds"},
		{role: state.Reader, name: "memory", family: "process_resident_memory_bytes"},
		{role: state.Writer, name: "memory", family: "process_resident_memory_bytes"},
		{role: state.Gateway, name: "memory", family: "process_resident_memory_bytes"},
		{role: state.Load, name: "memory", family: "process_resident_memory_bytes"},
	}
	// Quantiles of a histogram called x are named x_p50 and x_p99; those of "" p50 and p99.
	histogramSources = []source{
		{role: state.Reader, name: "", family: "http_request_duration_seconds", match: readRoute},
		{role: state.Reader, name: "propagation", family: "cache_propagation_seconds"},
		{role: state.Gateway, name: "", family: "apisix_http_latency", match: both(label("type", "request"), viaRoute), scale: 1e-3},
		{role: state.Writer, name: "publish", family: "writer_publish_seconds"},
		{role: state.Load, name: "", family: "load_read_duration_seconds"},
	}
)

// parseSample reads a scrape of a process of the given role, in the Prometheus text format. A counter without
// series is zero: a series appears with its first event. A gauge without series is absent.
func parseSample(r io.Reader, role string) (sample, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return sample{}, fmt.Errorf("parse metrics: %w", err)
	}
	s := sample{
		counters: make(map[string]float64), gauges: make(map[string]float64), histograms: make(map[string]histogram),
	}
	for _, src := range counterSources {
		if src.role == role {
			s.counters[src.name] += 0
			src.each(families, func(m *dto.Metric) { s.counters[src.name] += value(m) })
		}
	}
	for _, src := range gaugeSources {
		if src.role == role {
			src.each(families, func(m *dto.Metric) { s.gauges[src.name] += value(m) })
		}
	}
	for _, src := range histogramSources {
		if src.role == role {
			src.each(families, func(m *dto.Metric) {
				s.histograms[src.name] = s.histograms[src.name].plus(histogramOf(m.Histogram, src.scale))
			})
		}
	}
	source{family: "process_start_time_seconds"}.each(families, func(m *dto.Metric) { s.started = value(m) })
	return s, nil
}

// each calls visit with every series of the source.
func (s source) each(families map[string]*dto.MetricFamily, visit func(*dto.Metric)) {
	for _, m := range families[s.family].GetMetric() {
		if s.match != nil {
			labels := make(map[string]string, len(m.Label))
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if !s.match(labels) {
				continue
			}
		}
		visit(m)
	}
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	default:
		return m.Untyped.GetValue()
	}
}

// histogram has cumulative counts of the observations up to each bound, as in Prometheus. The last bound is +Inf.
// A histogram is immutable.
type histogram struct {
	bounds []float64
	counts []float64
}

// histogramOf returns the observations of h with bounds multiplied by scale, none when h is nil.
func histogramOf(h *dto.Histogram, scale float64) histogram {
	if h == nil {
		return histogram{}
	}
	if scale == 0 {
		scale = 1
	}
	var out histogram
	for _, b := range h.Bucket {
		out.bounds = append(out.bounds, b.GetUpperBound()*scale)
		out.counts = append(out.counts, float64(b.GetCumulativeCount()))
	}
	if n := len(out.bounds); n == 0 || !math.IsInf(out.bounds[n-1], 1) {
		out.bounds = append(out.bounds, math.Inf(1))
		out.counts = append(out.counts, float64(h.GetSampleCount()))
	}
	return out
}

func (h histogram) total() float64 {
	if len(h.counts) == 0 {
		return 0
	}
	return h.counts[len(h.counts)-1]
}

// plus returns the observations of both, which have the same bounds or none.
func (h histogram) plus(other histogram) histogram { return h.combine(other, 1) }

// since returns the observations after earlier. A histogram with fewer observations than earlier,
// or other bounds, was reset: all of its observations are new.
func (h histogram) since(earlier histogram) histogram {
	if h.total() < earlier.total() || !slices.Equal(h.bounds, earlier.bounds) {
		return h
	}
	return h.combine(earlier, -1)
}

func (h histogram) combine(other histogram, sign float64) histogram {
	if !slices.Equal(h.bounds, other.bounds) {
		if len(h.bounds) == 0 {
			return other
		}
		return h
	}
	out := histogram{bounds: h.bounds, counts: make([]float64, len(h.counts))}
	for i := range out.counts {
		out.counts[i] = h.counts[i] + sign*other.counts[i]
	}
	return out
}

// quantile returns the q-quantile as Prometheus estimates it: observations are spread evenly inside a bucket, and
// those above the highest finite bound count as that bound. It returns false without observations.
func (h histogram) quantile(q float64) (float64, bool) {
	total := h.total()
	if total <= 0 || len(h.bounds) < 2 {
		return 0, false
	}
	rank := q * total
	i := slices.IndexFunc(h.counts, func(c float64) bool { return c >= rank })
	if i < 0 || i == len(h.bounds)-1 {
		return h.bounds[len(h.bounds)-2], true
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = h.bounds[i-1], h.counts[i-1]
	}
	inside := h.counts[i] - below
	if inside <= 0 {
		return h.bounds[i], true
	}
	return low + (h.bounds[i]-low)*(rank-below)/inside, true
}
