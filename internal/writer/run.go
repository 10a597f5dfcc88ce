package writer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// Run runs a writer until ctx is done, then lets requests in flight finish. It returns nil after an
// orderly stop, and an error when the configuration cannot work or the port cannot be served.
// Redis need not be there.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	log := cfg.Logger
	ln, err := cfg.Common.Listen()
	if err != nil {
		return err
	}
	defer ln.Close() // a no-op once the server has closed it

	var back net.Listener // of what only operators need, where that has a port of its own
	if cfg.MetricsPort != 0 || cfg.MetricsListening != nil {
		back, err = (&daemon.Common{Port: cfg.MetricsPort, Host: cfg.Host, Listening: cfg.MetricsListening}).Listen()
		if err != nil {
			return err
		}
		defer back.Close()
	}

	publisher, finder, err := cfg.newPublisher(cfg.Timeout)
	if err != nil {
		return err
	}
	defer finder.Close()
	// Clients of imports wait for many lines, not for one: a Redis that pauses, as it does when it
	// forks, must not make a thousand of them unknown.
	importTimeout := 2 * cfg.Timeout
	bulk, bulkFinder, err := cfg.newPublisher(importTimeout)
	if err != nil {
		return err
	}
	defer bulkFinder.Close()

	registry := httpkit.NewRegistry("writer")
	finder.Register(registry)
	m := newMetrics(registry)
	b := &budget{}
	h := &handler{publisher: publisher, budget: b, metrics: m, log: log}
	i := newImporter(ctx, bulk, importTimeout, cmp.Or(cfg.patience, defaultPatience), b, m, log)
	s := newState(publisher, log)
	h.failed = s.suspect
	var watching sync.WaitGroup
	watchCtx, stopWatching := context.WithCancel(context.WithoutCancel(ctx)) // what drains still asks for /ready
	watching.Go(func() { s.watch(watchCtx) })
	defer watching.Wait()
	defer stopWatching()
	lock, origin := newLock(cfg.Token), newOriginGuard(cfg.Token, cfg.Hosts)
	guard := func(h http.HandlerFunc) http.HandlerFunc { return origin.guard(lock.guard(s.guard(h))) }
	requests := httpkit.NewHTTPMetrics(registry)
	router := httpkit.NewRouter(requests)
	router.Handle("/create", httpkit.Methods{http.MethodPost: guard(h.admit(opCreate, h.serveCreate))})
	posts := httpkit.Methods{http.MethodPut: guard(h.admit(opReplace, h.servePut)), http.MethodDelete: guard(h.serveDelete)}
	if cfg.ReaderURL != "" {
		maps.Copy(posts, httpkit.Read(redirect(cfg.ReaderURL)))
	}
	router.Handle("/post", posts)
	router.Handle("/import", httpkit.Methods{http.MethodPost: guard(i.serve)})
	operations, probes := router, []string{"/health", "/ready", "/status", "/metrics"}
	if back != nil {
		operations, probes = httpkit.NewRouter(requests), nil
	}
	operations.Handle("/health", httpkit.Read(s.serveHealth))
	operations.Handle("/ready", httpkit.Read(s.serveReady))
	operations.Handle("/status", httpkit.Read(serveStatus(finder, s)))
	operations.Handle("/metrics", httpkit.Read(httpkit.MetricsHandler(registry).ServeHTTP))

	log.Info("writer started", "addr", ln.Addr().String(), "redis", strings.Join(cfg.Redis.Addr, ","), "token", cfg.Token != "")
	front := fastlane.New(fastlane.Config{Std: httpkit.NewServer(linger(router), log), Probes: probes, Logger: log})
	servers, ctx := errgroup.WithContext(ctx)
	servers.Go(func() error {
		return httpkit.Serve(ctx, ln, front, cfg.Drain, func() {
			s.stopping.Store(true)
			log.Info("writer stopping", "drain", cfg.Drain)
		})
	})
	if back != nil {
		servers.Go(func() error { return httpkit.Serve(ctx, back, httpkit.NewServer(operations, log), cfg.Drain, nil) })
	}
	err = servers.Wait()
	log.Info("writer stopped")
	return err
}

// newPublisher returns a publisher whose writes take timeout at most, and its Finder. The caller closes the
// Finder.
func (c *Config) newPublisher(timeout time.Duration) (p *publisher.Publisher, finder *redisnode.Finder, err error) {
	at := c.Redis.Finder()
	at.Timeout, at.Logger = timeout, c.Logger
	finder, err = redisnode.New(at)
	if err != nil {
		return nil, nil, err
	}
	p, err = publisher.New(publisher.Config{
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
	return p, finder, nil
}
