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
	"heavy-read-api/internal/openapi"
	"heavy-read-api/internal/redisnode"
)

// Run runs a writer until ctx is done and then waits for requests in flight. It returns nil after an orderly stop, and
// an error if the configuration is invalid or a port cannot be bound. Redis may be unreachable when it starts.
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

	var back net.Listener // serves the operators' paths; nil if they are on PORT
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
	// Imports get a longer timeout, so that a short pause of Redis, as for a fork, does not leave a thousand lines
	// with an unknown outcome.
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
	h := &handler{publisher: publisher, budget: b, metrics: m, cookie: cfg.ConsistencyCookie, log: log}
	i := newImporter(ctx, bulk, importTimeout, cmp.Or(cfg.patience, defaultPatience), b, m, log)
	s := newState(publisher, log)
	h.failed = s.suspect
	var watching sync.WaitGroup
	watchCtx, stopWatching := context.WithCancel(context.WithoutCancel(ctx)) // /ready is still served during the drain
	watching.Go(func() { s.watch(watchCtx) })
	defer watching.Wait()
	defer stopWatching()
	token, origin := newTokenGuard(cfg.Token), newOriginGuard(cfg.Token, cfg.Hosts)
	guard := func(h http.HandlerFunc) http.HandlerFunc { return origin.guard(token.guard(s.guard(h))) }
	requests := httpkit.NewHTTPMetrics(registry)
	router := httpkit.NewRouter(requests)
	router.Handle("/create", httpkit.Methods{http.MethodPost: guard(h.admit(opCreate, h.serveCreate))})
	posts := httpkit.Methods{http.MethodPut: guard(h.admit(opReplace, h.servePut)), http.MethodDelete: guard(h.serveDelete)}
	if cfg.ReaderURL != "" {
		maps.Copy(posts, httpkit.Read(redirect(cfg.ReaderURL)))
	}
	router.Handle("/post", posts)
	router.Handle("/import", httpkit.Methods{http.MethodPost: guard(i.serve)})
	router.Handle(openapi.Path, httpkit.Read(openapi.Serve))
	operations, probes := router, []string{"/health", "/ready", "/status", "/metrics"}
	if back != nil {
		operations, probes = httpkit.NewRouter(requests), nil
	}
	operations.Handle("/health", httpkit.Read(s.serveHealth))
	operations.Handle("/ready", httpkit.Read(s.serveReady))
	operations.Handle("/status", httpkit.Read(serveStatus(finder, s)))
	operations.Handle("/metrics", httpkit.Read(httpkit.MetricsHandler(registry).ServeHTTP))

	log.Info("writer started", "addr", ln.Addr().String(), "redis", strings.Join(cfg.Redis.Addr, ","), "token", cfg.Token != "")
	front := fastlane.New(fastlane.Config{Post: "/create", Std: httpkit.NewServer(linger(router), log), Probes: probes, Logger: log})
	front.Register(registry)
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

// newPublisher returns a publisher with the given timeout for writes, and its Finder, which the caller must close.
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
