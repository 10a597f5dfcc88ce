package writer

import "github.com/prometheus/client_golang/prometheus"

// Operations and outcomes are the labels of writer_writes_total.
const (
	opCreate  = "create"
	opReplace = "replace"
	opDelete  = "delete"

	outcomeOK          = "ok"
	outcomeRefused     = "refused"     // the request was invalid
	outcomeConflict    = "conflict"    // the condition did not hold
	outcomeNotFound    = "not_found"   // there was nothing to delete
	outcomeBusy        = "busy"        // not written: too many bytes in flight
	outcomeUnavailable = "unavailable" // not written: Redis was unreachable or refused
	outcomeUnknown     = "unknown"     // Redis may have executed the write
)

type metrics struct {
	writes  *prometheus.CounterVec
	publish prometheus.Histogram
	lines   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writer_writes_total",
			Help: "Writes of single posts, by operation and outcome. A write that fails before Redis reports whether the post existed counts as create on /create and as replace on /post.",
		}, []string{"op", "outcome"}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "writer_publish_seconds",
			Help:    "Round trip of the script that writes and publishes one post, in seconds. Imports are not included.",
			Buckets: []float64{50e-6, 100e-6, 150e-6, 200e-6, 300e-6, 400e-6, 500e-6, 700e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 2},
		}),
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writer_import_lines_total", Help: "Lines of imports, by outcome.",
		}, []string{"outcome"}),
	}
	reg.MustRegister(m.writes, m.publish, m.lines)
	// Create all series now, because alerts need series that exist from the start.
	for _, op := range []string{opCreate, opReplace, opDelete} {
		for _, outcome := range []string{outcomeOK, outcomeRefused, outcomeConflict, outcomeUnavailable, outcomeUnknown} {
			m.writes.WithLabelValues(op, outcome)
		}
	}
	for _, op := range []string{opCreate, opReplace} { // a delete has no body
		m.writes.WithLabelValues(op, outcomeBusy)
	}
	m.writes.WithLabelValues(opDelete, outcomeNotFound)
	for _, outcome := range []string{lineCreated, lineReplaced, lineRefused, lineUnknown, lineNotWritten} {
		m.lines.WithLabelValues(outcome)
	}
	return m
}
