package fastlane

import "github.com/prometheus/client_golang/prometheus"

// Register registers the metrics of the connections with reg.
func (s *Server) Register(reg prometheus.Registerer) {
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "http_connections", Help: "Open client connections, without those beyond the limit.",
		}, func() float64 { return float64(s.connCount()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "http_connections_max", Help: "Limit of http_connections.",
		}, func() float64 { return float64(s.maxConns) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "http_connections_refused_total", Help: "Connections beyond the limit that were answered with 503 or closed; probes are served and do not count.",
		}, func() float64 { return float64(s.door.refused.Load()) }),
	)
}
