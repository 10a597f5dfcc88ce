package auditor

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// Run runs an auditor until ctx is done. It returns nil after an orderly stop, and an error if the configuration is invalid
// or it cannot listen on the port. It starts without Redis and without readers too.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	log := cfg.Logger
	ln, err := cfg.Common.Listen()
	if err != nil {
		return err
	}
	defer ln.Close() // no effect after the server has closed it
	at := cfg.Redis.Finder()
	at.ReadFrom, at.Logger = redisnode.Primary, log
	finder, err := redisnode.New(at)
	if err != nil {
		return err
	}
	defer finder.Close()
	registry := httpkit.NewRegistry("auditor")
	own, err := replica.New(replica.Config{
		Redis: finder, Channel: cfg.Redis.Channel, Namespace: cfg.Redis.Namespace, Local: cfg.Local, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("set up the auditor's copy: %w", err)
	}
	defer own.Close()

	a := &auditor{cfg: cfg, log: log, client: audit.NewClient(), replica: own, metrics: newMetrics(registry), now: time.Now, repairs: make(map[string]repair)}
	var running sync.WaitGroup
	defer running.Wait()
	work, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { own.Run(work) })
	running.Go(func() { a.run(work) })

	router := httpkit.NewRouter(httpkit.NewHTTPMetrics(registry))
	router.Handle("/health", httpkit.Read(func(w http.ResponseWriter, _ *http.Request) {
		httpkit.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
	}))
	router.Handle("/ready", httpkit.Read(a.verdict.serveReady))
	router.Handle("/status", httpkit.Read(a.verdict.serveStatus))
	router.Handle("/metrics", httpkit.Read(httpkit.MetricsHandler(registry).ServeHTTP))
	log.Info("auditor started", "addr", ln.Addr().String(), "redis", strings.Join(cfg.Redis.Addr, ","))
	err = httpkit.Serve(ctx, ln, httpkit.NewServer(router, log), -1, nil)
	log.Info("auditor stopped")
	return err
}
