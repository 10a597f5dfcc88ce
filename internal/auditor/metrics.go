package auditor

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/audit"
)

// metrics are the metrics of an auditor. Values of the last comparison are absent while nothing can be compared.
type metrics struct {
	comparisons *prometheus.CounterVec
	differences prometheus.Counter
	wrongKeys   prometheus.Counter
	repairs     prometheus.Counter

	mu         sync.Mutex // guards all fields below
	readers    int
	among, all audit.Result
	comparedAt time.Time
	agreedAt   time.Time
	fits       *bool
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		comparisons: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "audit_comparisons_total", Help: "Comparisons of the readers, by result."}, []string{"result"}),
		differences: counter("audit_differences_total", "Differences that were found: copies with different digests at one version."),
		wrongKeys:   counter("audit_wrong_keys_total", "Keys that were found to be wrong in a reader."),
		repairs:     counter("audit_repairs_total", "Snapshots that readers have loaded because they differed from Redis."),
	}
	for _, result := range []string{identical, different, incomparable} {
		m.comparisons.WithLabelValues(result)
	}
	reg.MustRegister(m.comparisons, m.differences, m.wrongKeys, m.repairs, m)
	return m
}

// Results of a comparison, a label of audit_comparisons_total.
const (
	identical    = "identical"
	different    = "different"
	incomparable = "incomparable"
)

// note stores the result of a comparison.
func (m *metrics) note(readers int, among, all *audit.Result, a *auditor) {
	result := incomparable
	switch {
	case len(all.Differ) > 0:
		result = different
	case among.Identical():
		result = identical
	}
	m.comparisons.WithLabelValues(result).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readers, m.among, m.all, m.agreedAt, m.fits = readers, *among, *all, a.agreedAt, a.fits
	if result != incomparable {
		m.comparedAt = time.Now()
	}
}

var (
	replicasIdentical = prometheus.NewDesc("audit_replicas_identical", "1 if all readers that can be compared are identical, 0 if some differ; absent while fewer than two can be compared.", nil, nil)
	redisIdentical    = prometheus.NewDesc("audit_redis_identical", "1 if the readers are identical with what the auditor has read from Redis, 0 if one differs; absent while they cannot be compared.", nil, nil)
	copyComplete      = prometheus.NewDesc("audit_copy_complete", "1 if all posts fit into AUDIT_MAX_SIZE, 0 if not: then the readers are not compared with Redis, and none is repaired; absent before the first scan.", nil, nil)
	auditReaders      = prometheus.NewDesc("audit_readers", "Readers that the auditor knows.", nil, nil)
	auditCompared     = prometheus.NewDesc("audit_readers_compared", "Readers that were compared at one version.", nil, nil)
	auditVersion      = prometheus.NewDesc("audit_version", "Version at which the readers were last compared.", nil, nil)
	comparedSeconds   = prometheus.NewDesc("audit_compared_age_seconds", "Time since readers were last compared, in seconds; absent before the first time.", nil, nil)
	redisSeconds      = prometheus.NewDesc("audit_redis_agreed_age_seconds", "Age of the last scan of Redis with which the readers agreed, in seconds; absent before the first time.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{replicasIdentical, redisIdentical, copyComplete, auditReaders, auditCompared, auditVersion, comparedSeconds, redisSeconds} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	flag := func(d *prometheus.Desc, holds bool) {
		if holds {
			gauge(d, 1)
		} else {
			gauge(d, 0)
		}
	}
	gauge(auditReaders, float64(m.readers))
	gauge(auditCompared, float64(len(m.among.Compared)))
	if len(m.among.Differ) > 0 || m.among.Identical() {
		flag(replicasIdentical, m.among.Identical())
		gauge(auditVersion, float64(m.among.Head.Version))
	}
	if known, same := redisVerdict(&m.all); known {
		flag(redisIdentical, same)
	}
	if m.fits != nil {
		flag(copyComplete, *m.fits)
	}
	if !m.comparedAt.IsZero() {
		gauge(comparedSeconds, time.Since(m.comparedAt).Seconds())
	}
	if !m.agreedAt.IsZero() {
		gauge(redisSeconds, time.Since(m.agreedAt).Seconds())
	}
}

// redisVerdict returns whether the auditor's copy was compared with a reader's, and whether none differs from it.
func redisVerdict(all *audit.Result) (known, same bool) {
	for _, p := range all.Differ {
		if p[0] == ownName || p[1] == ownName {
			return true, false
		}
	}
	for _, name := range all.Compared {
		if name == ownName && len(all.Compared) > 1 {
			return true, true
		}
	}
	return false, false
}
