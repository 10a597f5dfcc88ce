package writer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/service"
)

// pingTimeout bounds a look at Redis for /ready.
const pingTimeout = 500 * time.Millisecond

// Run runs a writer until ctx is done, then lets requests in flight finish. It returns nil after an
// orderly stop, and an error when the configuration cannot work or the port cannot be served.
// Redis need not be there.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	log := cfg.Logger
	ln, err := service.Listen(&cfg.Common)
	if err != nil {
		return err
	}
	defer ln.Close() // a no-op once the server has closed it

	publisher, closeClient, err := cfg.newPublisher(cfg.Timeout)
	if err != nil {
		return err
	}
	defer closeClient()
	// Clients of imports wait for many lines, not for one: a Redis that pauses, as it does when it
	// forks, must not make a thousand of them unknown.
	importTimeout := 2 * cfg.Timeout
	bulk, closeBulk, err := cfg.newPublisher(importTimeout)
	if err != nil {
		return err
	}
	defer closeBulk()

	registry := service.NewRegistry("writer")
	m := newMetrics(registry)
	h := &handler{publisher: publisher, metrics: m, log: log}
	i := newImporter(ctx, bulk, importTimeout, m, log)
	s := &state{publisher: publisher}
	lock := newLock(cfg.Token)
	router := service.NewRouter(service.NewHTTPMetrics(registry))
	router.Handle("/create", service.Methods{http.MethodPost: lock.guard(h.serveCreate)})
	router.Handle("/post", service.Methods{http.MethodPut: lock.guard(h.servePut), http.MethodDelete: lock.guard(h.serveDelete)})
	router.Handle("/import", service.Methods{http.MethodPost: lock.guard(i.serve)})
	router.Handle("/health", service.Read(s.serveHealth))
	router.Handle("/ready", service.Read(s.serveReady))
	router.Handle("/metrics", service.Read(service.MetricsHandler(registry).ServeHTTP))

	log.Info("writer started", "addr", ln.Addr().String(), "redis", strings.Join(cfg.Redis.Addr, ","), "token", cfg.Token != "")
	err = service.Serve(ctx, ln, service.NewServer(router, log), cfg.Drain, func() {
		s.stopping.Store(true)
		log.Info("writer stopping", "drain", cfg.Drain)
	})
	log.Info("writer stopped")
	return err
}

// newPublisher returns a publisher whose writes take timeout at most, and what closes its connections.
func (c *Config) newPublisher(timeout time.Duration) (p *cache.Publisher, end func() error, err error) {
	at := c.Redis.Finder()
	at.Timeout, at.Logger = timeout, c.Logger
	finder, err := redisnode.New(at)
	if err != nil {
		return nil, nil, err
	}
	p, err = cache.NewPublisher(cache.PublisherConfig{
		Redis:     finder,
		Channel:   c.Redis.Channel,
		Namespace: c.Redis.Namespace,
		LogLength: c.LogLength,
		Timeout:   timeout,
		Replicas:  c.Replicas,
	})
	if err != nil {
		_ = finder.Close() // it has no connection yet
		return nil, nil, fmt.Errorf("set up the publisher: %w", err)
	}
	return p, finder.Close, nil
}

// state tells others whether the writer can write.
type state struct {
	publisher *cache.Publisher
	stopping  atomic.Bool
}

func (s *state) serveHealth(w http.ResponseWriter, _ *http.Request) {
	service.JSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *state) serveReady(w http.ResponseWriter, r *http.Request) {
	type readiness struct {
		Status  string   `json:"status"` // ready, no redis or stopping
		Reasons []string `json:"reasons,omitempty"`
	}
	if s.stopping.Load() {
		service.JSON(w, http.StatusServiceUnavailable, readiness{"stopping", []string{"the writer is stopping"}})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := s.publisher.Ping(ctx); err != nil {
		service.JSON(w, http.StatusServiceUnavailable, readiness{"no redis", []string{"Redis does not answer: " + err.Error()}})
		return
	}
	service.JSON(w, http.StatusOK, readiness{Status: "ready"})
}
