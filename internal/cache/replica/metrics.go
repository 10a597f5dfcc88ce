package replica

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of a replica.
type metrics struct {
	propagation     prometheus.Histogram
	messages        [messageResults]prometheus.Counter
	catchups        *prometheus.CounterVec
	snapshots       *prometheus.CounterVec
	resubscriptions prometheus.Counter
	fallbacks       [fallbackResults]prometheus.Counter
	removed         prometheus.Counter
	scrubbed        prometheus.Counter
	scrubs          prometheus.Counter
	damaged         prometheus.Counter
	hits            prometheus.Counter
	misses          prometheus.Counter
	saves           [saveResults]prometheus.Counter

	vecs []prometheus.Collector // vectors of messages, resubscriptions, fallbacks and saves
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	messages := vec("cache_messages_total", "Messages received from the channel, by result.", "result")
	resubscriptions := vec("cache_resubscriptions_total", "Subscriptions that the replica closed and replaced by a new one, by reason.", "reason")
	fallbacks := vec("cache_fallbacks_total", "Reads that Redis answered, by result.", "result")
	saves := vec("cache_file_saves_total", "Saves of the snapshot file, by result.", "result")
	m := &metrics{
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cache_propagation_seconds",
			Help: "Time from the writer framing a value to this replica serving it, in seconds, for values that arrived on the channel. Both hosts use estimates of Redis's clock.",
			Buckets: []float64{50e-6, 100e-6, 150e-6, 200e-6, 300e-6, 400e-6, 500e-6, 700e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3,
				7.5e-3, 10e-3, 20e-3, 35e-3, 50e-3, 75e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5, 10},
		}),
		catchups:        vec("cache_catchups_total", "Catch-ups from the log, by reason.", "reason"),
		snapshots:       vec("cache_snapshots_total", "Snapshots, by reason.", "reason"),
		resubscriptions: resubscriptions.WithLabelValues("silent"),
		removed:         counter("cache_reload_removed_total", "Entries that a snapshot dropped because Redis no longer has them."),
		scrubbed:        counter("cache_scrubbed_bytes_total", "Bytes of entries that the scrub has compared with their digests."),
		scrubs:          counter("cache_scrubs_total", "Times that the scrub has read all entries."),
		damaged:         counter("cache_damaged_total", "Blocks of entries in which damage was found."),
		hits:            counter("cache_hits_total", "Reads answered from memory, absences included."),
		misses:          counter("cache_misses_total", "Reads that memory could not answer."),
		vecs:            []prometheus.Collector{messages, resubscriptions, fallbacks, saves},
	}
	// Every series exists from the start, so that alerts see its first increase.
	for i := range m.messages {
		m.messages[i] = messages.WithLabelValues(messageResult(i).String())
	}
	for i := range m.fallbacks {
		m.fallbacks[i] = fallbacks.WithLabelValues(fallbackResult(i).String())
	}
	for i := range m.saves {
		m.saves[i] = saves.WithLabelValues(saveResult(i).String())
	}
	return m
}

// register adds the metrics of r to reg.
func (m *metrics) register(reg prometheus.Registerer, r *Replica) {
	gauge := func(name, help string, value func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(r.Status()) })
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	reg.MustRegister(m.vecs...)
	reg.MustRegister(
		m.propagation, m.catchups, m.snapshots, m.removed, m.hits, m.misses, m.scrubbed, m.scrubs, m.damaged, digestCollector{r},
		gauge("cache_applied_version", "Version up to which every write is applied.", func(s Status) float64 { return float64(s.Applied.Version) }),
		gauge("cache_newest_version", "Newest version in Redis, as of the last reply.", func(s Status) float64 { return float64(s.Newest.Version) }),
		gauge("cache_lag_versions", "Writes in Redis that are not applied yet, as of the last reply.", func(s Status) float64 { return float64(s.LagVersions) }),
		gauge("cache_lag_seconds", "Time since the replica was last known to have every write, in seconds; 0 while it is in sync.", func(s Status) float64 { return s.Lag.Seconds() }),
		gauge("cache_entries", "Entries in memory.", func(s Status) float64 { return float64(s.Entries) }),
		gauge("cache_bytes", "Upper bound of the memory that the entries take, in bytes, including the index and dead space.", func(s Status) float64 { return float64(s.Bytes) }),
		gauge("cache_max_bytes", "Limit of cache_bytes, in bytes.", func(s Status) float64 { return float64(s.MaxBytes) }),
		gauge("cache_from_file", "1 while the entries are from the snapshot file and Redis has not confirmed them.", func(s Status) float64 { return flag(s.FromFile) }),
		gauge("cache_file_timestamp_seconds", "Unix time at which the data in the snapshot file were last known to be current, in seconds; 0 without a file.", func(s Status) float64 {
			if s.File == nil {
				return 0
			}
			return float64(s.File.Current.UnixMilli()) / 1000
		}),
		gauge("cache_file_bytes", "Size of the snapshot file, in bytes; 0 without a file.", func(s Status) float64 {
			if s.File == nil {
				return 0
			}
			return float64(s.File.Bytes)
		}),
		gauge("cache_ready", "1 once the first snapshot is complete and the subscription has been confirmed, or the snapshot file is served because Redis is unreachable.", func(s Status) float64 { return flag(s.Ready) }),
		gauge("cache_complete", "1 while the whole data set is in memory.", func(s Status) float64 { return flag(s.Complete) }),
		gauge("cache_synced", "1 while the replica is known to have every write.", func(s Status) float64 { return flag(s.Synced) }),
		gauge("cache_subscribed", "1 while the subscription is confirmed.", func(s Status) float64 { return flag(s.Subscribed) }),
		counter("cache_evictions_total", "Entries evicted for lack of room.", func() float64 { return float64(r.store.Evictions()) }),
		counter("cache_rejections_total", "Entries that the admission policy refused.", func() float64 { return float64(r.store.Rejections()) }),
	)
}

// digestCollector exports the digest at the watermark, in halves of 32 bits, which a float64 holds exactly. There are no
// series while the replica cannot be compared with others.
type digestCollector struct{ r *Replica }

var (
	digestHigh    = prometheus.NewDesc("cache_digest_high", "Upper 32 bits of the digest of the whole data set at cache_digest_version; absent while it is not in memory.", nil, nil)
	digestLow     = prometheus.NewDesc("cache_digest_low", "Lower 32 bits of the digest of the whole data set at cache_digest_version.", nil, nil)
	digestVersion = prometheus.NewDesc("cache_digest_version", "Version at which the data set has the digest.", nil, nil)
)

func (c digestCollector) Describe(to chan<- *prometheus.Desc) {
	to <- digestHigh
	to <- digestLow
	to <- digestVersion
}

func (c digestCollector) Collect(to chan<- prometheus.Metric) {
	d := c.r.public.Load().digest // one load, so that the three belong together
	if d == nil {
		return
	}
	to <- prometheus.MustNewConstMetric(digestHigh, prometheus.GaugeValue, float64(d.Value>>32))
	to <- prometheus.MustNewConstMetric(digestLow, prometheus.GaugeValue, float64(d.Value&(1<<32-1)))
	to <- prometheus.MustNewConstMetric(digestVersion, prometheus.GaugeValue, float64(d.Head.Version))
}
