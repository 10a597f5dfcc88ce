package replica

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
)

// Config configures the read side. The caller owns the Finders, and closes them after Run.
type Config struct {
	Redis      *redisnode.Finder
	Direct     *redisnode.Finder // Finder of Replica.Direct, made with DirectConfig, not the same as Redis; nil if Direct is never called
	Channel    string            // Pub/Sub channel; default posts_updates
	Namespace  string            // first part of every key in Redis; default posts
	Local      store.Config
	FeedWindow int64         // bound of the changes that the feed keeps in memory, in bytes; default 8 MiB
	Probe      time.Duration // time between two probes; default 500 ms
	Scrub      time.Duration // time in which the scrub reads all entries once; default DefaultScrub, negative for no scrub
	Logger     *slog.Logger  // default slog.Default()
	File       FileConfig    // the snapshot file; the zero value means none
	Registerer prometheus.Registerer
}

// Replica is the read side: the data set in memory, kept equal to Redis while Run runs. All other methods may be called
// by any goroutine at any time.
type Replica struct {
	cfg     Config
	keys    protocol.Keys
	store   *store.Store
	misses  *missQueue
	public  *published
	sub     *subscription
	over    overEpochs
	newest  *newest
	metrics *metrics
	source  *redisSource
	file    *file  // nil without a snapshot file
	saver   *saver // nil without a snapshot file
	turns   *turns
	feed    *feed.Feed // usable without a turn

	keyLists *keyLists
}

// New returns a Replica that is empty. It does not connect; Run does.
func New(cfg Config) (*Replica, error) {
	if cfg.Redis == nil {
		return nil, errors.New("a replica needs a Finder of its Redis server")
	}
	if cfg.Direct == cfg.Redis {
		return nil, errors.New("direct reads would use the connections that keep the replica up to date: make a separate Finder with DirectConfig")
	}
	if err := checkPool(cfg.Redis); err != nil {
		return nil, err
	}
	cfg.Channel = cmp.Or(cfg.Channel, protocol.DefaultChannel)
	cfg.Namespace = cmp.Or(cfg.Namespace, protocol.DefaultNamespace)
	cfg.Probe = cmp.Or(cfg.Probe, 500*time.Millisecond)
	cfg.Scrub = cmp.Or(cfg.Scrub, DefaultScrub)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.FeedWindow = cmp.Or(cfg.FeedWindow, feedWindow)
	if err := protocol.CheckNamespace(cfg.Namespace); err != nil {
		return nil, err
	}
	var err error
	if cfg.Local, err = cfg.Local.WithDefaults(); err != nil {
		return nil, err
	}
	if err := cfg.File.Complete(); err != nil {
		return nil, err
	}
	owner, err := store.New(cfg.Local)
	if err != nil {
		return nil, err
	}
	keys := protocol.NewKeys(cfg.Namespace)
	in, misses, m, src := newInbox(), newMissQueue(), newMetrics(), newRedisSource(cfg.Redis, keys)
	a := newApplier(src, owner, in, misses, cfg.Logger, m)
	a.scrub.period = cfg.Scrub
	a.feed = feed.New(cfg.FeedWindow, feedLog{src})
	a.vanish = newVanishWatch(cfg.Redis, cfg.Logger)
	t := newTurns(a)
	a.sub = &subscription{redis: cfg.Redis, channel: cfg.Channel, turns: t, log: cfg.Logger, metrics: m}
	r := &Replica{cfg: cfg, keys: keys, store: owner.Store, misses: misses, public: a.public, sub: a.sub, metrics: m, source: src, turns: t, feed: a.feed,
		keyLists: newKeyLists(owner.Store, a.feed)}
	r.newest = &newest{ask: r.askNewest}
	if a.file = newFile(cfg.File, cfg.Namespace); a.file != nil {
		r.file = a.file
		r.saver = newSaver(a.file, owner.Store, t, cfg.Logger, m, owner.MaxSize(), owner.HeapEstimate)
	}
	if cfg.Registerer != nil {
		m.register(cfg.Registerer, r)
	}
	return r, nil
}

// Run keeps the replica equal to Redis until ctx is done; it survives every fault of Redis and of the network. Call it
// once. Afterwards reads are still answered from memory.
func (r *Replica) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { r.sub.run(ctx) })
	running.Go(func() { r.feed.Run(ctx) })
	if r.saver != nil {
		running.Go(func() { r.saver.run(ctx) })
	}
	defer running.Wait()
	r.turns.run(ctx, r.cfg.Probe)
}

// Save writes the snapshot file at once, without a bound of the bandwidth, for use before the process ends. It blocks
// until the file is on disk, another replica is found to write it, the save has failed, or ctx is done, and logs the
// result. Call it while Run runs. Without a snapshot file it does nothing.
func (r *Replica) Save(ctx context.Context) error {
	if r.saver == nil {
		return nil
	}
	return r.saver.last(ctx)
}

// Feed returns the newest changes.
func (r *Replica) Feed() *feed.Feed { return r.feed }

// Close frees the memory, with its goroutines. Call it after Run has returned. Later reads miss.
func (r *Replica) Close() { r.turns.take((*applier).close) }

// Get looks key up in memory. It misses while memory holds a file that may not be served yet. It allocates nothing,
// takes no lock of this package, and does not keep key. It does not count hits: the caller does with CountHits, for
// many reads at once.
func (r *Replica) Get(key []byte) (store.Entry, store.Lookup) {
	if r.public.withheld.Load() {
		return store.Entry{}, store.Miss
	}
	return r.store.Get(key)
}

// Prefetch prepares Get for the keys that the caller looks up next. See store.Store.Prefetch.
func (r *Replica) Prefetch(keys [][]byte) { r.store.Prefetch(keys) }

// CountHits counts n reads that were answered from memory, with an entry or with its absence.
func (r *Replica) CountHits(n int) { r.metrics.hits.Add(float64(n)) }
