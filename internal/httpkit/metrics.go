package httpkit

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"heavy-read-api/internal/buildinfo"
)

// NewRegistry returns a registry with the metrics of the Go runtime and of the process, and service_info.
func NewRegistry(service string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	build := buildinfo.Read()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "service_info", Help: "Always 1; the labels identify the service and its build.",
	}, []string{"service", "version", "revision", "go_version"})
	info.WithLabelValues(service, build.Version, build.Revision, build.GoVersion).Set(1)
	reg.MustRegister(info)
	return reg
}

// HTTPMetrics counts and times requests by route. A route is a path that the server registered, never
// the path of a request, so the number of labels is bounded.
type HTTPMetrics struct {
	Requests *prometheus.CounterVec   // http_requests_total{route,method,code}
	Duration *prometheus.HistogramVec // http_request_duration_seconds{route}
	Bytes    *prometheus.CounterVec   // http_response_body_bytes_total{route}
}

// NewHTTPMetrics registers the request metrics of a service.
func NewHTTPMetrics(reg prometheus.Registerer) *HTTPMetrics {
	m := &HTTPMetrics{
		Requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests answered, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		Duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "Time from reading the request's header to writing the answer, in seconds.",
			Buckets: []float64{5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 10},
		}, []string{"route"}),
		Bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_response_body_bytes_total", Help: "Bytes of response bodies written, by route.",
		}, []string{"route"}),
	}
	reg.MustRegister(m.Requests, m.Duration, m.Bytes)
	return m
}

// instrument wraps h so that its requests are counted and timed under route.
func (m *HTTPMetrics) instrument(route string, h http.Handler) http.Handler {
	return promhttp.InstrumentHandlerDuration(m.Duration.MustCurryWith(prometheus.Labels{"route": route}), m.count(route, h))
}

// count wraps h so that its requests are counted under route.
func (m *HTTPMetrics) count(route string, h http.Handler) http.Handler {
	label := prometheus.Labels{"route": route}
	return promhttp.InstrumentHandlerCounter(m.Requests.MustCurryWith(label), countBytes(m.Bytes.With(label), h))
}

func countBytes(total prometheus.Counter, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &countingWriter{ResponseWriter: w}
		h.ServeHTTP(cw, r)
		if r.Method != http.MethodHead { // net/http discards the body of an answer to HEAD
			total.Add(float64(cw.bytes))
		}
	})
}

// countingWriter counts the bytes of the body. Unwrap lets http.ResponseController reach the connection.
type countingWriter struct {
	http.ResponseWriter
	bytes int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// MetricsHandler serves reg in the Prometheus text format.
func MetricsHandler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg})
}
