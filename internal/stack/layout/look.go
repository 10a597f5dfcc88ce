package layout

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/stack/state"
)

// lookOnce lets all that look at the same time share one look, which takes CheckTimeout at most.
type lookOnce[T any] struct{ flight singleflight.Group }

func (l *lookOnce[T]) do(look func(context.Context) T) T {
	result, _, _ := l.flight.Do("", func() (any, error) {
		// Not a caller's context: its end must not cut the look of the others short.
		ctx, cancel := context.WithTimeout(context.Background(), CheckTimeout)
		defer cancel()
		return look(ctx), nil
	})
	return result.(T)
}

// serverView is what a Redis server says about itself.
type serverView struct {
	peer
	err      error // why it did not answer; then nothing else is known
	loading  bool
	primary  bool
	upstream string // address of the server that a Redis replica follows
	linkUp   bool   // to upstream
	replicas int    // connected ones, of a primary
	good     int    // of those: that count for min-replicas-to-write
	required int    // min-replicas-to-write
}

// viewServer asks a server about its replication.
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

// sentinelView is what a Sentinel says.
type sentinelView struct {
	peer
	err     error  // why it did not answer; then nothing else is known
	primary string // address
	epoch   int64  // of the configuration that names it
	down    bool   // the Sentinel does not reach the primary, or replaces it right now
	usable  int    // Redis replicas that it could promote
	alone   bool   // the Sentinels that it reaches are too few to replace the primary
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
	v.alone = redis.HasErrorPrefix(err, "NOQUORUM")
	if !v.alone {
		v.err = err
	}
	return v
}

// sentinelLook is one look at servers and Sentinels.
type sentinelLook struct {
	servers   []serverView
	sentinels []sentinelView
	primary   string // address that the newest configuration names, "" when no Sentinel answers
	agree     int    // Sentinels that name it
}

// look asks every server and every Sentinel.
func (g *sentinelGroup) look() sentinelLook {
	return g.looks.do(func(ctx context.Context) sentinelLook {
		l := sentinelLook{servers: make([]serverView, len(g.servers)), sentinels: make([]sentinelView, len(g.sentinels))}
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

// settle finds out whom the Sentinels name: one that was cut off from the others still names the old
// primary, in an older configuration.
func (l *sentinelLook) settle() {
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
func (l sentinelLook) canReplace(self peer) bool {
	return slices.ContainsFunc(l.sentinels, func(s sentinelView) bool { return s.err == nil && !s.alone }) &&
		slices.ContainsFunc(l.servers, func(s serverView) bool { return s.err == nil && !s.primary && s.upstream == self.addr })
}

// name returns the name of a server.
func (l sentinelLook) name(addr string) string {
	for _, s := range l.servers {
		if s.addr == addr {
			return s.name
		}
	}
	return addr
}

// hasPrimary reports whether the server that the Sentinels name is there and a primary.
func (l sentinelLook) hasPrimary() bool {
	return slices.ContainsFunc(l.servers, func(v serverView) bool { return v.addr == l.primary && v.err == nil && v.primary })
}

// server judges a server.
func (l sentinelLook) server(p peer) state.Health {
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

// health judges a server by what it says itself.
func (v serverView) health(name func(addr string) string) state.Health {
	switch {
	case v.err != nil:
		return state.Health{Detail: ShortNetError(v.err)}
	case v.loading:
		return state.Health{Detail: "loads its append-only file"}
	case v.primary && v.good < v.required:
		return state.Health{Ready: true, Note: "primary", Detail: fmt.Sprintf("refuses writes: %d of %d required Redis replicas are connected (REDIS_MIN_REPLICAS)", v.good, v.required)}
	case v.primary && v.replicas == 1:
		return state.Health{Ready: true, Note: "primary, 1 replica"}
	case v.primary:
		return state.Health{Ready: true, Note: fmt.Sprintf("primary, %d replicas", v.replicas)}
	case !v.linkUp:
		return state.Health{Ready: true, Note: "replica of " + name(v.upstream), Detail: "the link is down"}
	}
	return state.Health{Ready: true, Note: "replica of " + name(v.upstream) + ", link up"}
}

// sentinel judges a Sentinel.
func (l sentinelLook) sentinel(p peer) state.Health {
	v := l.sentinels[slices.IndexFunc(l.sentinels, func(v sentinelView) bool { return v.peer == p })]
	if v.err != nil {
		return state.Health{Detail: ShortNetError(v.err)}
	}
	h := state.Health{Ready: true, Note: fmt.Sprintf("%d of %d agree on %s", l.agree, len(l.sentinels), l.name(l.primary))}
	switch {
	case 2*l.agree <= len(l.sentinels):
		h.Ready, h.Detail = false, "no quorum: most Sentinels are silent or name another primary"
	case v.alone:
		h.Ready, h.Detail = false, "no quorum: it does not reach most of the others"
	case v.down || !l.hasPrimary():
		h.Ready, h.Detail = false, "no primary: "+l.name(v.primary)+" does not answer or is being replaced"
	case v.primary != l.primary:
		h.Detail = "it still names " + l.name(v.primary)
	case v.usable == 0:
		h.Detail = "it reaches no Redis replica that it could promote"
	}
	return h
}
