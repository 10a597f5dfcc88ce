package gateway

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
)

// drainTime is how long the gateway keeps serving after it reports "not ready". It is shorter than that of the readers,
// because no load balancer, which would have to take the gateway off its list first, stands in front of it: this only
// gives clients the time to see answers with Connection: close.
const drainTime = 250 * time.Millisecond

const (
	metricsPath     = "/apisix/prometheus/metrics"
	maxMetricsConns = 64 // connections to the metrics port; probes are answered beyond that
)

// Run runs a gateway until ctx is done and then waits for requests in flight. It returns nil after an orderly stop, and an
// error if the configuration is invalid or a port cannot be bound.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	cfg.setDefaults()
	log := cfg.Logger

	// Health checks and the polling of the nodes file continue until the last request has been answered.
	var followers sync.WaitGroup
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	pools := &pools{timeout: cfg.Timeout}
	list := newNodes(log, pools)
	list.check = newChecker(cfg.CheckInterval, cfg.Timeout, list.checked).run
	defer func() {
		stop()
		followers.Wait() // before list.wait: a reload may start new checks
		list.wait()
		list.retire()
	}()
	list.set(background, cfg.Readers)
	if cfg.NodesFile != "" {
		file := &nodesFile{path: cfg.NodesFile, log: log, set: func(addrs []string) { list.set(background, addrs) }}
		file.reload()
		followers.Go(func() { file.follow(background, cfg.ReloadInterval) })
	}

	reg := httpkit.NewRegistry("gateway")
	draining, drain := context.WithCancel(context.WithoutCancel(ctx))
	defer drain()
	p := &proxy{balancer: &balancer{nodes: list, try: (*node).try}, log: log, stopping: draining}
	fast := &lane{proxy: p}
	front := fastlane.New(fastlane.Config{
		Path: postPath, Handler: fast.conn, Std: httpkit.NewServer(&handler{p}, log), Logger: log,
		FilesPerConn: 3, // the client's connection, one to a reader, and an idle one to another reader
	})
	fast.server = front
	front.Register(reg)
	pools.most = int64(front.MaxConns())
	p.metrics = newMetrics(reg, list, front.States)

	var stopping atomic.Bool
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, httpkit.MetricsHandler(reg))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		answerReady(w, list.statuses(), stopping.Load())
	})
	back := fastlane.New(fastlane.Config{
		Std: httpkit.NewServer(mux, log), Logger: log, MaxConns: maxMetricsConns, Probes: []string{"/health", "/ready", metricsPath},
	})

	frontListener, err := cfg.Common.Listen()
	if err != nil {
		return err
	}
	backListener, err := (&daemon.Common{Port: cfg.MetricsPort, Host: cfg.Host, Listening: cfg.MetricsListening}).Listen()
	if err != nil {
		frontListener.Close()
		return err
	}
	log.Info("gateway started", "addr", frontListener.Addr().String(), "metrics", backListener.Addr().String())
	servers, ctx := errgroup.WithContext(ctx)
	servers.Go(func() error {
		return httpkit.Serve(ctx, frontListener, front, drainTime, func() {
			stopping.Store(true)
			drain()
			log.Info("gateway stopping", "drain", drainTime)
		})
	})
	servers.Go(func() error { return httpkit.Serve(ctx, backListener, back, drainTime, nil) })
	err = servers.Wait()
	log.Info("gateway stopped")
	return err
}

// answerReady answers 200 if at least one reader is ready, else 503 with the reasons.
func answerReady(w http.ResponseWriter, all []status, stopping bool) {
	type answer struct {
		Status  string   `json:"status"`
		Readers int      `json:"readers"`
		Ready   int      `json:"ready"`
		Reasons []string `json:"reasons,omitempty"`
	}
	a := answer{Status: "ready", Readers: len(all)}
	for _, s := range all {
		if s.ready {
			a.Ready++
		} else {
			a.Reasons = append(a.Reasons, s.addr+": "+s.reason)
		}
	}
	code := http.StatusServiceUnavailable
	switch {
	case stopping:
		a.Status, a.Reasons = "stopping", nil
	case a.Readers == 0:
		a.Status, a.Reasons = "no reader", []string{"no reader is listed"}
	case a.Ready == 0:
		a.Status = "no reader"
	default:
		code = http.StatusOK
	}
	httpkit.JSON(w, code, a)
}
