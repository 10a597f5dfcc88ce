package load

import (
	"context"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/httpkit"
)

// Run runs a generator until ctx is done, with /ready and /metrics on the port of cfg. It returns an error if it cannot
// listen there.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	ln, err := cfg.Common.Listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	g := New(cfg)
	registry := httpkit.NewRegistry("load")
	g.register(registry)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpkit.MetricsHandler(registry))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	cfg.Logger.Info("load started", "gateway", cfg.Gateway, "reads_per_second", cfg.Reads, "writes_per_second", cfg.Writes)
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() { g.Run(ctx) })
	return httpkit.Serve(ctx, ln, httpkit.NewServer(mux, cfg.Logger), 0, nil)
}

// register adds the metrics of g to reg. It is called before Run.
func (g *Generator) register(reg prometheus.Registerer) {
	latency := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "load_read_duration_seconds", Help: "Time from sending a read to the gateway until its whole answer has arrived, in seconds.",
		Buckets: []float64{100e-6, 200e-6, 300e-6, 500e-6, 700e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7.5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5, 10},
	})
	g.observe = latency.Observe
	reg.MustRegister(latency)
	counter := func(name, help, result string, value func(Counts) int64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"result": result},
		}, func() float64 { return float64(value(g.Counts())) }))
	}
	const reads, writes = "load_reads_total", "load_writes_total"
	const readsHelp, writesHelp = "Reads that have ended, by result as the client sees it.", "Writes that have ended, by result."
	counter(reads, readsHelp, "ok", func(c Counts) int64 { return c.Reads - c.Failed() })
	counter(reads, readsHelp, "server_error", func(c Counts) int64 { return c.Answered })
	counter(reads, readsHelp, "no_answer", func(c Counts) int64 { return c.NoAnswer })
	counter(reads, readsHelp, "missing", func(c Counts) int64 { return c.Missing })
	counter(reads, readsHelp, "wrong", func(c Counts) int64 { return c.Wrong })
	counter(writes, writesHelp, "ok", func(c Counts) int64 { return c.Writes - c.Refused })
	counter(writes, writesHelp, "failed", func(c Counts) int64 { return c.Refused })
}
