package layout

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
)

// shared lets concurrent callers share one request for a view, which takes health.Timeout at most.
type shared[T any] struct{ flight singleflight.Group }

func (l *shared[T]) do(view func(context.Context) T) T {
	result, _, _ := l.flight.Do("", func() (any, error) {
		// Not a caller's context: its end must not end the request for the other callers.
		ctx, cancel := context.WithTimeout(context.Background(), health.Timeout)
		defer cancel()
		return view(ctx), nil
	})
	return result.(T)
}

// serverView is the state of a Redis server, as the server itself reports it.
type serverView struct {
	peer
	err      error // error of the request; if not nil, all other fields are empty
	loading  bool
	primary  bool
	upstream string // address of a Redis replica's primary
	linkUp   bool   // link to upstream
	replicas int    // connected Redis replicas of a primary
	good     int    // Redis replicas that count for min-replicas-to-write
	required int    // min-replicas-to-write
}

// viewServer requests the replication state of a server.
func viewServer(ctx context.Context, c *redis.Client, p peer) serverView {
	v := serverView{peer: p}
	info, err := c.Info(ctx, "replication", "persistence").Result()
	if err != nil {
		v.err = err
		return v
	}
	r := redisnode.ParseReplication(info)
	v.loading = infoNumber(info, "loading") == 1
	v.primary, v.upstream, v.linkUp = r.Role == redisnode.Primary, r.Upstream, r.LinkUp
	v.replicas, v.good = r.Replicas, max(r.GoodReplicas, 0)
	return v
}

// sentinelView is the state of a Sentinel, as the Sentinel itself reports it.
type sentinelView struct {
	peer
	err      error  // error of the request; if not nil, all other fields are empty
	primary  string // address of the primary that it names
	epoch    int64  // configuration epoch of that primary
	down     bool   // it does not reach the primary, or a failover is under way
	usable   int    // number of Redis replicas that it could promote
	noQuorum bool   // it reaches too few Sentinels for a quorum
}

func (g *sentinelGroup) viewSentinel(ctx context.Context, p peer) sentinelView {
	v := sentinelView{peer: p}
	c := redisClient(p.addr, g.password)
	defer c.Close()
	seen, err := redisnode.AskSentinel(ctx, c, masterName)
	if err == nil {
		seen.Replicas, err = redisnode.AskReplicas(ctx, c, masterName)
	}
	if err != nil {
		v.err = err
		return v
	}
	v.epoch, v.primary, v.down = seen.Epoch, seen.Primary, seen.Down || seen.FailingOver
	for _, r := range seen.Replicas {
		if r.Reached && r.InfoSeen {
			v.usable++
		}
	}
	err = c.Do(ctx, "sentinel", "ckquorum", masterName).Err()
	v.noQuorum = redis.HasErrorPrefix(err, "NOQUORUM")
	if !v.noQuorum {
		v.err = err
	}
	return v
}

// groupView is the state of all servers and Sentinels at one time.
type groupView struct {
	servers   []serverView
	sentinels []sentinelView
	primary   string // address of the primary in the newest configuration, "" when no Sentinel answers
	agree     int    // number of Sentinels that name it
}

// view requests the state of every server and every Sentinel.
func (g *sentinelGroup) view() groupView {
	return g.views.do(func(ctx context.Context) groupView {
		l := groupView{servers: make([]serverView, len(g.servers)), sentinels: make([]sentinelView, len(g.sentinels))}
		var all sync.WaitGroup
		for i, p := range g.servers {
			all.Go(func() {
				c := redisClient(p.addr, g.password)
				defer c.Close()
				l.servers[i] = viewServer(ctx, c, p)
				l.servers[i].required = g.minReplicas
			})
		}
		for i, p := range g.sentinels {
			all.Go(func() { l.sentinels[i] = g.viewSentinel(ctx, p) })
		}
		all.Wait()
		l.settle()
		return l
	})
}

// settle sets the primary to that of the newest configuration: a Sentinel that was cut off from the others still
// names the old primary, in an older configuration.
func (l *groupView) settle() {
	newest := int64(-1)
	for _, s := range l.sentinels {
		if s.err == nil && s.epoch > newest {
			l.primary, newest = s.primary, s.epoch
		}
	}
	for _, s := range l.sentinels {
		if s.err == nil && s.primary == l.primary {
			l.agree++
		}
	}
}

// canReplace reports whether the Sentinels can promote another server if self stays down.
func (l groupView) canReplace(self peer) bool {
	return slices.ContainsFunc(l.sentinels, func(s sentinelView) bool { return s.err == nil && !s.noQuorum }) &&
		slices.ContainsFunc(l.servers, func(s serverView) bool { return s.err == nil && !s.primary && s.upstream == self.addr })
}

// name returns the name of a server.
func (l groupView) name(addr string) string {
	for _, s := range l.servers {
		if s.addr == addr {
			return s.name
		}
	}
	return addr
}

// hasPrimary reports whether the server that the Sentinels name answers and is a primary.
func (l groupView) hasPrimary() bool {
	return slices.ContainsFunc(l.servers, func(v serverView) bool { return v.addr == l.primary && v.err == nil && v.primary })
}

// server returns the health of a server.
func (l groupView) server(p peer) state.Health {
	v := l.servers[slices.IndexFunc(l.servers, func(v serverView) bool { return v.peer == p })]
	h := v.health(l.name)
	switch {
	case !h.Ready || h.Detail != "" || l.primary == "":
	case v.primary && l.primary != p.addr:
		h.Detail = "the Sentinels name " + l.name(l.primary)
	case !v.primary && l.primary != v.upstream && l.primary != p.addr:
		h.Detail = "the Sentinels name " + l.name(l.primary)
	case !v.primary && l.primary == p.addr:
		h.Detail = "it is being promoted"
	}
	return h
}

// health returns the health of a server without regard to the Sentinels.
func (v serverView) health(name func(addr string) string) state.Health {
	switch {
	case v.err != nil:
		return state.Health{Detail: health.ShortError(v.err)}
	case v.loading:
		return state.Health{Detail: "loading its append-only file"}
	case v.primary && v.good < v.required:
		return state.Health{Ready: true, Note: "primary", Detail: fmt.Sprintf("refuses writes: %d of %d required Redis replicas are connected (REDIS_MIN_REPLICAS)", v.good, v.required)}
	case v.primary && v.replicas == 1:
		return state.Health{Ready: true, Note: "primary, 1 Redis replica"}
	case v.primary:
		return state.Health{Ready: true, Note: fmt.Sprintf("primary, %d Redis replicas", v.replicas)}
	case !v.linkUp:
		return state.Health{Ready: true, Note: "Redis replica of " + name(v.upstream), Detail: "the link is down"}
	}
	return state.Health{Ready: true, Note: "Redis replica of " + name(v.upstream) + ", link up"}
}

// sentinel returns the health of a Sentinel.
func (l groupView) sentinel(p peer) state.Health {
	v := l.sentinels[slices.IndexFunc(l.sentinels, func(v sentinelView) bool { return v.peer == p })]
	if v.err != nil {
		return state.Health{Detail: health.ShortError(v.err)}
	}
	h := state.Health{Ready: true, Note: fmt.Sprintf("%d of %d agree on %s", l.agree, len(l.sentinels), l.name(l.primary))}
	switch {
	case 2*l.agree <= len(l.sentinels):
		h.Ready, h.Detail = false, "no quorum: most Sentinels do not answer or name another primary"
	case v.noQuorum:
		h.Ready, h.Detail = false, "no quorum: this Sentinel does not reach most of the others"
	case v.down || !l.hasPrimary():
		h.Ready, h.Detail = false, "no primary: "+l.name(v.primary)+" does not answer or is being replaced"
	case v.primary != l.primary:
		h.Detail = "it still names " + l.name(v.primary)
	case v.usable == 0:
		h.Detail = "no Redis replica could be promoted"
	}
	return h
}
