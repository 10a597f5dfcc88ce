package gateway

import (
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/fastlane"
)

// upstreamName is the name of the upstream in APISIX and the Host of the requests that are sent to readers.
const upstreamName = "reader"

// metrics has the names, labels and units of APISIX, so that one dashboard fits both. A node is named host:port, where
// APISIX only has the address, because all readers of the local stack share one address. APISIX's service is a configuration object that the
// stack does not use, so that label is empty. The counters of removed readers are kept, because sums must not decrease.
type metrics struct {
	requests  atomic.Int64
	status    *prometheus.CounterVec   // apisix_http_status
	latency   *prometheus.HistogramVec // apisix_http_latency, in milliseconds
	bandwidth *prometheus.CounterVec   // apisix_bandwidth, in bytes
	series    sync.Map                 // of seriesKey to *series

	nodes *nodes
	conns func() fastlane.States
}

func newMetrics(reg prometheus.Registerer, n *nodes, conns func() fastlane.States) *metrics {
	m := &metrics{
		status: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apisix_http_status", Help: "Requests answered, by status code, route and node.",
		}, []string{"code", "route", "matched_uri", "matched_host", "service", "consumer", "node"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apisix_http_latency",
			Help:    "Latency in milliseconds: the whole request, the wait for the upstream's header, and the gateway's share.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000},
		}, []string{"type", "route", "service", "consumer", "node"}),
		bandwidth: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apisix_bandwidth", Help: "Bytes of requests (ingress) and responses (egress), headers included.",
		}, []string{"type", "route", "service", "consumer", "node"}),
		nodes: n,
		conns: conns,
	}
	reg.MustRegister(m.status, m.latency, m.bandwidth, m)
	return m
}

// series holds the metrics of one route and reader, so that requests do not look them up by labels.
type series struct {
	key                       seriesKey
	codes                     [500]atomic.Pointer[prometheus.Counter] // by status code, from 100 on
	request, upstream, apisix prometheus.Observer
	ingress, egress           prometheus.Counter
}

// seriesKey identifies a series. uri is the path of the route, "" for requests without a route; node is the address of the
// reader, "" for requests that were sent to none.
type seriesKey struct{ uri, node string }

func (m *metrics) seriesOf(uri, node string) *series {
	key := seriesKey{uri, node}
	if s, ok := m.series.Load(key); ok {
		return s.(*series)
	}
	route := routes[uri]
	latency := func(kind string) prometheus.Observer { return m.latency.WithLabelValues(kind, route, "", "", node) }
	bandwidth := func(kind string) prometheus.Counter { return m.bandwidth.WithLabelValues(kind, route, "", "", node) }
	s := &series{key: key, request: latency("request"), apisix: latency("apisix"), ingress: bandwidth("ingress"), egress: bandwidth("egress")}
	if node != "" {
		s.upstream = latency("upstream")
	}
	actual, _ := m.series.LoadOrStore(key, s)
	return actual.(*series)
}

// post returns the series of postPath and n, which may be nil.
func (m *metrics) post(n *node) *series {
	if n == nil {
		return m.seriesOf(postPath, "")
	}
	s := n.post.Load()
	if s == nil {
		s = m.seriesOf(postPath, n.addr)
		n.post.Store(s)
	}
	return s
}

// answered counts a request and its answer. received and sent are their sizes in bytes, headers included.
func (m *metrics) answered(s *series, code int, x *exchange, received, sent int) {
	m.requests.Add(1)
	at := &s.codes[code-100]
	counter := at.Load()
	if counter == nil {
		c := m.status.WithLabelValues(strconv.Itoa(code), routes[s.key.uri], s.key.uri, "", "", "", s.key.node)
		counter = &c
		at.Store(counter)
	}
	(*counter).Inc()
	request, upstream := milliseconds(time.Since(x.start)), milliseconds(x.upstream)
	s.request.Observe(request)
	s.apisix.Observe(request - upstream)
	if s.upstream != nil {
		s.upstream.Observe(upstream)
	}
	s.ingress.Add(float64(received))
	s.egress.Add(float64(sent))
}

// observe counts a request that net/http has served. route is "" for requests without a route.
func (m *metrics) observe(route string, r *http.Request, rec *recorder, x *exchange) {
	uri, node := "", ""
	if route != "" {
		uri = r.URL.Path
	}
	if x.node != nil {
		node = x.node.addr
	}
	requestLine := len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\n") + len("Host: \r\n") + len(r.Host)
	answer := len("HTTP/1.1 200 OK\r\n") + headerSize(rec.Header()) + rec.bytes
	m.answered(m.seriesOf(uri, node), rec.status, x, requestLine+headerSize(r.Header), answer)
}

// milliseconds returns d in whole milliseconds, the resolution of APISIX.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond) / time.Millisecond)
}

// headerSize returns the size of h on the wire in bytes, including the empty line that ends it.
func headerSize(h http.Header) int {
	size := len("\r\n")
	for name, values := range h {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}

var (
	requestsDesc = prometheus.NewDesc("apisix_http_requests_total",
		"Requests since the gateway started.", nil, nil)
	upstreamDesc = prometheus.NewDesc("apisix_upstream_status",
		"Whether an upstream's node is ready (1) or not (0).", []string{"name", "ip", "port"}, nil)
	connectionsDesc = prometheus.NewDesc("apisix_nginx_http_current_connections",
		"Client connections by state; accepted and handled count since the start.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector for the metrics that are computed at each scrape.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- requestsDesc
	out <- upstreamDesc
	out <- connectionsDesc
}

// Collect implements prometheus.Collector. Readers that left the list have no status.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(requestsDesc, float64(m.requests.Load()))
	for _, s := range m.nodes.statuses() {
		value := 0.0
		if s.ready {
			value = 1
		}
		host, port, _ := net.SplitHostPort(s.addr) // the list has only valid addresses
		gauge(upstreamDesc, value, "/upstreams/"+upstreamName, host, port)
	}
	n := m.conns()
	for state, n := range map[string]int{
		"accepted": n.Accepted, "handled": n.Accepted, "active": n.Reading + n.Writing + n.Waiting,
		"reading": n.Reading, "writing": n.Writing, "waiting": n.Waiting,
	} {
		gauge(connectionsDesc, float64(n), state)
	}
}

// recorder records the status and size of an answer. Unwrap lets http.ResponseController reach the connection.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int // size of the body; includes the problem document of a HEAD, which net/http does not send
}

func (w *recorder) WriteHeader(status int) {
	w.status = status // the last call wins: earlier ones are interim answers
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
