package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Config configures the read side. The caller owns the Finders, and closes them after Run.
type Config struct {
	Redis      *redisnode.Finder
	Direct     *redisnode.Finder // for Replica.Direct, made with DirectConfig and never Redis itself; nil where that is not called
	Channel    string            // Pub/Sub channel; default posts_updates
	Namespace  string            // first part of every key in Redis; default posts
	Local      store.Config
	Probe      time.Duration // between looks at the head; default 500 ms
	Logger     *slog.Logger  // default slog.Default()
	Registerer prometheus.Registerer
}

// Replica is the read side: the data set in memory, kept equal to Redis while Run runs. All other
// methods may be called by many goroutines at any time.
type Replica struct {
	cfg     Config
	keys    protocol.Keys
	store   *store.Store
	applier *applier
	misses  *missQueue
	sub     *subscription
	over    overEpochs
	vanish  *vanishWatch
	metrics *metrics
	ready   atomic.Bool
}

// New returns a Replica that is empty. It does not connect; Run does.
func New(cfg Config) (*Replica, error) {
	if cfg.Redis == nil {
		return nil, errors.New("a replica needs a Finder of its Redis server")
	}
	if cfg.Direct == cfg.Redis {
		return nil, errors.New("direct reads would take the connections that keep the replica up to date: make a Finder of their own with DirectConfig")
	}
	if err := checkPool(cfg.Redis); err != nil {
		return nil, err
	}
	cfg.Channel = cmp.Or(cfg.Channel, protocol.DefaultChannel)
	cfg.Namespace = cmp.Or(cfg.Namespace, protocol.DefaultNamespace)
	cfg.Probe = cmp.Or(cfg.Probe, 500*time.Millisecond)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if err := protocol.CheckNamespace(cfg.Namespace); err != nil {
		return nil, err
	}
	var err error
	if cfg.Local, err = cfg.Local.WithDefaults(); err != nil {
		return nil, err
	}
	st, err := store.New(cfg.Local)
	if err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, keys: protocol.NewKeys(cfg.Namespace), store: st, misses: newMissQueue(), metrics: newMetrics()}
	in := newInbox()
	src := newRedisSource(cfg.Redis, r.keys)
	r.applier = newApplier(src, st, in, r.misses, cfg.Logger, r.metrics)
	r.vanish = newVanishWatch(cfg.Redis, cfg.Logger)
	r.sub = &subscription{redis: cfg.Redis, channel: cfg.Channel, inbox: in, log: cfg.Logger, metrics: r.metrics}
	if cfg.Registerer != nil {
		r.metrics.register(cfg.Registerer, r)
	}
	return r, nil
}

// Run keeps the replica equal to Redis until ctx is done; it survives every fault of Redis and of
// the network. Call it once. Reads may go on after it, from memory.
func (r *Replica) Run(ctx context.Context) {
	var listening sync.WaitGroup
	listening.Go(func() { r.sub.run(ctx) })
	defer listening.Wait()
	defer r.misses.close(errStopped)

	probe := time.NewTicker(r.cfg.Probe)
	defer probe.Stop()
	a := r.applier
	r.vanish.begin(ctx)
	a.resync(ctx, "start")
	for {
		// A probe that is due goes first: under a flood of misses or messages the select below
		// could pass it by.
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			r.probe(ctx)
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			r.probe(ctx)
		case <-r.misses.wake:
			_ = a.catchUp(ctx, "miss") // the misses have the error
		case <-a.inbox.wake:
			live := r.sub.live.Load()
			messages, doubt := a.inbox.drain()
			a.applyMessages(ctx, messages)
			if doubt != "" {
				a.resync(ctx, doubt)
			} else if !a.synced {
				a.resync(ctx, "retry")
			}
			r.confirm(live)
		}
	}
}

func (r *Replica) probe(ctx context.Context) {
	live := r.sub.live.Load()
	if r.applier.probe(ctx) && live != 0 {
		r.cfg.Logger.Warn("the subscription is silent; dialing again")
		r.sub.redial("silent")
	}
	r.confirm(live)
	r.vanish.check(ctx, r.applier)
}

// confirm makes the replica ready when a step has reached the end of the log after the subscription
// that is still live was confirmed: from there on nothing can be missed unnoticed.
func (r *Replica) confirm(live uint64) {
	if !r.ready.Load() && r.applier.synced && live != 0 && r.sub.live.Load() == live {
		r.ready.Store(true)
		r.cfg.Logger.Info("ready", "entries", r.store.Entries(), "version", r.applier.watermark.Version)
	}
}

// Close frees the local cache, with its goroutines. Call it after Run has returned. Reads that still run,
// or come later, miss.
func (r *Replica) Close() { r.store.Close() }

// Get looks key up in memory. It allocates nothing, takes no lock of this package, and does not
// keep key. It counts nothing: tell CountHits and CountMisses, in batches where that pays.
func (r *Replica) Get(key []byte) (store.Entry, store.Lookup) { return r.store.Get(key) }

// CountHits adds reads that were answered from memory, with an entry or with its absence.
func (r *Replica) CountHits(n int) { r.metrics.hits.Add(float64(n)) }

// Errors of reads that need Redis.
var (
	ErrUnavailable = errors.New("no answer from Redis")
	ErrBehind      = errors.New("the wanted version is not there yet")
	errStopped     = errors.New("the replica has stopped")
)

// Fetch answers a read that memory could not: Redis is asked, in the same step in which the replica
// catches up, so that the answer is exactly as new as memory. The answer includes the write that min
// names, unless min belongs to a history that is over; the zero token asks for no write. Fetch blocks
// until ctx is done at most. The error wraps ErrUnavailable, or ErrBehind when Redis does not have
// that write, or is a Redis replica that cannot tell.
func (r *Replica) Fetch(ctx context.Context, key string, min protocol.Token) (e store.Entry, present bool, err error) {
	r.metrics.misses.Inc()
	a := r.misses.ask(ctx, key)
	switch {
	case a.err != nil:
		err = fmt.Errorf("%w: %w", ErrUnavailable, a.err)
	case a.head.Reached(min):
	case a.head.Epoch == min.Epoch:
		err = fmt.Errorf("%w: Redis has version %d", ErrBehind, a.head.Version)
	case r.applier.source.fromReplica():
		err = fmt.Errorf("%w: the Redis replica is in another history", ErrBehind)
	default:
		r.over.add(min.Epoch, a.head.Epoch)
	}
	r.countFallback(a.present, err)
	return a.entry, a.present, err
}

func (r *Replica) countFallback(present bool, err error) {
	switch {
	case err != nil:
		r.metrics.fallbacks.WithLabelValues("error").Inc()
	case present:
		r.metrics.fallbacks.WithLabelValues("found").Inc()
	default:
		r.metrics.fallbacks.WithLabelValues("absent").Inc()
	}
}

// Direct reads key from Redis, past the replica: the slow way that the fast one is compared with.
// Its answer may be newer than what memory answers next. It blocks until ctx is done at most, and fails
// sooner when too many direct reads wait; the error wraps ErrUnavailable.
func (r *Replica) Direct(ctx context.Context, key string) (e store.Entry, present bool, err error) {
	if r.cfg.Direct == nil {
		return e, false, fmt.Errorf("%w: the replica has no connections for direct reads", ErrUnavailable)
	}
	stored, err := r.directGet(ctx, r.keys.Prefix+key)
	if errors.Is(err, redis.Nil) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	written, rec, err := protocol.DecodeStored(stored)
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return store.Entry{Epoch: written.Epoch, Version: written.Version, Value: rec.Value}, true, nil
}

// directGet reads from the server that is right now, which the connections for direct reads may learn only
// from the refusal of another one.
func (r *Replica) directGet(ctx context.Context, key string) (string, error) {
	for {
		n, err := r.cfg.Direct.Node(ctx)
		if err != nil {
			return "", err
		}
		stored, err := n.Get(ctx, key).Result()
		if err == nil || errors.Is(err, redis.Nil) {
			return stored, err
		}
		r.cfg.Direct.ReportError(n, err)
		if !redisnode.Refused(err) {
			return "", err
		}
	}
}

// Reached reports whether the replica has applied the write that t names; the zero token names none.
// A token of another epoch has not been reached, until Fetch has shown that its history is over: it may
// have just begun.
func (r *Replica) Reached(t protocol.Token) bool {
	p := r.applier.public.Load()
	return t == protocol.Token{} || p.loaded && (p.watermark.Reached(t) || r.over.has(t.Epoch, p.watermark.Epoch))
}

// channelWait is how long WaitFor leaves it to the channel before Redis is asked.
const channelWait = 100 * time.Millisecond

// WaitFor waits briefly for the channel to bring the write that t names, and reports whether the
// replica has reached it. A token of another epoch is not waited for. WaitFor blocks for patience at
// most, and not after ctx is done. After false, Fetch answers.
//
// Reading from a Redis replica, WaitFor waits for any token until ctx is done: the Redis replica may lack
// the write as well, and does not know whether the history of the token is over.
func (r *Replica) WaitFor(ctx context.Context, t protocol.Token) bool {
	relayed := r.applier.source.fromReplica()
	if !relayed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, channelWait)
		defer cancel()
	}
	for {
		moved := r.applier.gate.wait()
		if r.Reached(t) {
			return true
		}
		if !relayed && r.applier.public.Load().watermark.Epoch != t.Epoch {
			return false
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// Status is what a replica knows of itself.
type Status struct {
	Ready       bool          // the whole set was loaded and the subscription confirmed; stays true
	Synced      bool          // every write that Redis has is applied, as far as the last look tells
	Complete    bool          // the whole set is in memory
	Subscribed  bool          // the subscription is confirmed
	Degraded    bool          // ready, but not known to be up to date
	Problem     string        // why the replica is not known to be up to date, or ""
	NoHistory   bool          // Redis has values, but sequence, epoch or log were deleted: not synced until the next write
	Applied     protocol.Head // every write up to here is applied
	Newest      protocol.Head // newest that Redis reported
	LagVersions uint64
	Lag         time.Duration     // since the replica last knew that it had every write; 0 while it does
	Snapshot    *SnapshotProgress // the load that is running, or nil
	Entries     int64
	Bytes       int64 // most memory that the entries may come to take, index and dead space included
	Held        int64 // estimate of the heap that the entries take now, in bytes
	MaxBytes    int64
	SubProblem  string   // why the subscription is not confirmed, as far as that is known
	Hazards     []string // in words: how Redis may lose values without a write, or just has
}

// Status returns the state of the replica. It does not block.
func (r *Replica) Status() Status {
	p := r.applier.public.Load()
	s := Status{
		Ready:       r.ready.Load(),
		Complete:    r.store.Complete(),
		Subscribed:  r.sub.live.Load() != 0,
		Applied:     p.watermark,
		Newest:      p.newest,
		LagVersions: lagOf(p.watermark, p.newest),
		Snapshot:    p.snapshot,
		NoHistory:   p.noHistory,
		Problem:     p.problem,
		Hazards:     *r.vanish.hazards.Load(),
		Entries:     r.store.Entries(),
		Bytes:       r.store.Cost(),
		Held:        r.store.HeapEstimate(),
		MaxBytes:    r.store.MaxSize(),
	}
	if !s.Subscribed {
		s.SubProblem, _ = r.sub.err.Load().(string)
	}
	age := time.Since(p.contact)
	if p.contact.IsZero() {
		age = 0 // nothing to be behind of yet
	}
	// In sync as long as probes come back; a probe takes stepTimeout at most.
	s.Synced = p.synced && age < r.cfg.Probe+stepTimeout
	if !s.Synced {
		s.Lag = age
	}
	s.Degraded = s.Ready && (!s.Synced || !s.Subscribed)
	return s
}
