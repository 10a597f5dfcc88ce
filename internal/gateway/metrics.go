package gateway

import (
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// upstreamName is the name of the group of readers: of the upstream in APISIX, and the Host that they are asked for.
const upstreamName = "reader"

// metrics has the names, labels and units of APISIX, so that one dashboard fits both. A node is
// named host:port, where APISIX has the address alone: here all readers share one address.
// There is no service in APISIX's sense, so that label is empty.
// Counters of readers that left stay, or sums over them would step back.
type metrics struct {
	requests  atomic.Int64
	status    *prometheus.CounterVec   // apisix_http_status
	latency   *prometheus.HistogramVec // apisix_http_latency, in milliseconds
	bandwidth *prometheus.CounterVec   // apisix_bandwidth, in bytes

	nodes *nodes
	conns connections
}

func newMetrics(reg prometheus.Registerer, n *nodes) *metrics {
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
		conns: connections{states: make(map[net.Conn]http.ConnState)},
	}
	reg.MustRegister(m.status, m.latency, m.bandwidth, m)
	return m
}

// observe counts a request that was answered. A route of "" is none.
func (m *metrics) observe(route string, r *http.Request, rec *recorder, x *exchange, took time.Duration) {
	m.requests.Add(1)
	uri := ""
	if route != "" {
		uri = r.URL.Path
	}
	m.status.WithLabelValues(strconv.Itoa(rec.status), route, uri, "", "", "", x.node).Inc()
	observe := func(kind string, milliseconds float64) {
		m.latency.WithLabelValues(kind, route, "", "", x.node).Observe(milliseconds)
	}
	request, upstream := milliseconds(took), milliseconds(x.upstream)
	observe("request", request)
	if x.node != "" {
		observe("upstream", upstream)
	}
	observe("apisix", request-upstream)

	requestLine := len(r.Method) + len(r.RequestURI) + len("  HTTP/1.1\r\n") + len("Host: \r\n") + len(r.Host)
	answer := len("HTTP/1.1 200 OK\r\n") + headerSize(rec.Header()) + rec.bytes
	m.bandwidth.WithLabelValues("ingress", route, "", "", x.node).Add(float64(requestLine + headerSize(r.Header)))
	m.bandwidth.WithLabelValues("egress", route, "", "", x.node).Add(float64(answer))
}

// milliseconds returns d in whole milliseconds, as APISIX measures.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond) / time.Millisecond)
}

// headerSize returns the bytes of h on the wire, with the empty line that ends it.
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

// Describe implements prometheus.Collector for what is read at the time of a scrape.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- requestsDesc
	out <- upstreamDesc
	out <- connectionsDesc
}

// Collect implements prometheus.Collector. A reader that left the list has no status.
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
		host, port, _ := net.SplitHostPort(s.addr) // the list holds valid addresses alone
		gauge(upstreamDesc, value, "/upstreams/"+upstreamName, host, port)
	}
	for state, n := range m.conns.count() {
		gauge(connectionsDesc, float64(n), state)
	}
}

// connections counts client connections by state, as nginx does.
type connections struct {
	mu       sync.Mutex // guards all below
	states   map[net.Conn]http.ConnState
	accepted int
}

// change is the http.Server's ConnState hook.
func (c *connections) change(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.accepted++
		c.states[conn] = state
	case http.StateClosed, http.StateHijacked:
		delete(c.states, conn)
	default:
		c.states[conn] = state
	}
}

func (c *connections) count() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{
		"accepted": c.accepted, "handled": c.accepted, "active": len(c.states),
		"reading": 0, "writing": 0, "waiting": 0,
	}
	for _, state := range c.states {
		switch state {
		case http.StateNew:
			n["reading"]++ // no byte of a request yet
		case http.StateActive:
			n["writing"]++
		case http.StateIdle:
			n["waiting"]++
		}
	}
	return n
}

// recorder notes status and size of an answer. Unwrap lets http.ResponseController reach the
// connection.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int // of the body; a HEAD's problem counts too, though net/http does not send it
}

func (w *recorder) WriteHeader(status int) {
	w.status = status // the last one counts: those below 200 announce it
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
