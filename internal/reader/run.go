package reader

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/audit"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/fastlane"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/openapi"
	"heavy-read-api/internal/redisnode"
)

// saveTimeout bounds the last save of the snapshot file, from the start of the drain. It is shorter than the longest
// drain with requests in flight, which supervisors grant.
const saveTimeout = 8 * time.Second

// Run runs a reader until ctx is done, then drains: it waits for the requests in flight. It returns nil
// after an orderly stop, and an error if the configuration is invalid or it cannot listen on the port. It
// starts without Redis too, and becomes ready when Redis is reachable.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	log := cfg.Logger
	ln, err := cfg.Common.Listen() // first, so that a port in use is reported before the snapshot starts
	if err != nil {
		return err
	}
	defer ln.Close() // no effect after the server has closed it

	at := cfg.Redis.Finder()
	at.ReadFrom, at.Logger = cfg.ReadFrom, log
	finder, err := redisnode.New(at)
	if err != nil {
		return err
	}
	defer finder.Close()
	direct, err := redisnode.New(replica.DirectConfig(at))
	if err != nil {
		return err
	}
	defer direct.Close()
	registry := httpkit.NewRegistry("reader")
	finder.Register(registry)
	replica, err := replica.New(replica.Config{
		Redis:      finder,
		Direct:     direct,
		Channel:    cfg.Redis.Channel,
		Namespace:  cfg.Redis.Namespace,
		Local:      cfg.Local,
		File:       cfg.File,
		Scrub:      cfg.Scrub,
		FeedWindow: cfg.ChangesWindow,
		Logger:     log,
		Registerer: registry,
	})
	if err != nil {
		return fmt.Errorf("set up the cache: %w", err)
	}
	defer replica.Close()

	// The replica outlives ctx, because requests in flight may wait for its updates.
	var following sync.WaitGroup
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	following.Go(func() { replica.Run(follow) })
	following.Go(func() { pace(follow, replica) })
	defer following.Wait()
	defer stop()

	h := &handler{getter: &getter{replica: replica, budget: waitBudget}}
	signed := newSignature(cfg.PodID, cfg.AllowOrigin)
	s := &state{replica: replica, redis: finder, podID: cfg.PodID}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "reader_stopping", Help: "1 while the reader drains before an orderly stop, else 0.",
	}, s.stoppingMetric))
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "reader_info", Help: "Always 1; pod_id is the name of the reader, as in X-Served-By.",
	}, []string{"pod_id"})
	info.WithLabelValues(cfg.PodID).Set(1)
	registry.MustRegister(info)
	metrics := httpkit.NewHTTPMetrics(registry)
	router := httpkit.NewRouter(metrics)
	router.Handle(postPath, readable(h.serve(fromMemory), cfg.AllowOrigin))
	router.Handle(postsPath, readable(h.servePosts, cfg.AllowOrigin))
	router.Handle("/post-redis", readable(h.serve(fromRedis), cfg.AllowOrigin))
	router.Handle("/post-marshal", readable(h.serve(fromMarshal), cfg.AllowOrigin))
	changes := newChanges(replica, registry)
	router.HandleStream(changesPath, changes.methods(cfg.AllowOrigin))
	router.Handle(openapi.Path, readable(openapi.Serve, cfg.AllowOrigin))
	router.Handle("/health", httpkit.Read(s.serveHealth))
	router.Handle("/ready", httpkit.Read(s.serveReady))
	router.Handle("/status", httpkit.Read(s.serveStatus))
	audit.Register(router, replica, cfg.PodID)
	router.Handle("/metrics", httpkit.Read(httpkit.MetricsHandler(registry).ServeHTTP))

	log.Info("reader started", "addr", ln.Addr().String(), "pod_id", cfg.PodID, "redis", strings.Join(cfg.Redis.Addr, ","))
	fast := newLane(h.getter, signed, metrics)
	fast.server = fastlane.New(fastlane.Config{
		Path: postPath, Handler: fast.conn, Refuse: fast.refuse, Probes: []string{"/health", "/ready", "/status", "/metrics"},
		Std: httpkit.NewServer(signed.handler(router), log), Logger: log,
	})
	fast.server.Register(registry)
	h.hold = fast.server.Hold
	changes.most = int64(cmp.Or(cfg.MaxFollowers, fast.server.MaxConns()/2))
	var saving sync.WaitGroup // beside the drain, while the replica still runs
	err = httpkit.Serve(ctx, ln, fast.server, cfg.Drain, func() {
		s.stopping.Store(true)
		replica.Feed().Stop() // followers resume on another reader
		log.Info("reader is stopping: not ready any more, still serving during the drain", "drain", cfg.Drain)
		saving.Go(func() {
			bounded, cancel := context.WithTimeout(follow, saveTimeout)
			defer cancel()
			_ = replica.Save(bounded) // logs its result
		})
	})
	saving.Wait()
	log.Info("reader stopped")
	return err
}
