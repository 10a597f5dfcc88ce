package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// The layout REDIS=cluster: redis-1 to redis-3 begin as primaries of a third of the slots each, and
// redis-4 to redis-6 as their Redis replicas.
const (
	clusterPrimaries = 3
	clusterNodes     = 2 * clusterPrimaries
	clusterSlots     = 16384
)

// reunionWait is how long nodes with a configuration have to find each other after a start, before they are
// introduced again because their ports may have changed. A primary that starts waits for 2 s.
const reunionWait = 5 * time.Second

// clusterGroup is a Redis Cluster.
type clusterGroup struct {
	nodes    []peer
	busPort  int // bus port of the first node
	password string
	key      string // key of the shard; the owner of its slot has the posts
	log      *slog.Logger
	views    shared[clusterView]
}

// clusterStages returns the stage of REDIS=cluster.
func (c *Config) clusterStages() ([]Stage, string, error) {
	g := &clusterGroup{
		nodes:    peers(state.Redis, c.RedisPort, clusterNodes),
		busPort:  c.RedisBusPort,
		password: c.Password,
		key:      protocol.ShardKey(cmp.Or(os.Getenv("CACHE_NAMESPACE"), "posts")),
		log:      c.Logger,
	}
	nodes := Stage{Form: g.form}
	for i, p := range g.nodes {
		s, err := c.clusterNode(g, p, supervisor.Port{Number: c.RedisPort + i, Env: "REDIS_PORT"}, supervisor.Port{Number: c.RedisBusPort + i, Env: "REDIS_BUS_PORT"})
		if err != nil {
			return nil, "", err
		}
		nodes.Specs = append(nodes.Specs, s)
	}
	return []Stage{nodes}, fmt.Sprintf("a cluster of %d nodes, append-only files in %s", clusterNodes, c.redisDir()), nil
}

func (c *Config) clusterNode(g *clusterGroup, p peer, at, bus supervisor.Port) (supervisor.Spec, error) {
	dir := filepath.Join(c.redisDir(), p.name)
	s, err := c.redisServer(p.name, dir, at,
		"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-announce-ip", supervisor.Host,
		"--cluster-port", strconv.Itoa(bus.Number),
		// A node that is silent for 2 s counts as failed; it also stops taking writes then if it is the
		// one that was cut off.
		"--cluster-node-timeout", "2000",
		// The posts are in one shard, which need not stop when another one fails.
		"--cluster-require-full-coverage", "no",
		"--repl-ping-replica-period", "1", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb",
		// No min-replicas-to-write: with one Redis replica a shard would stop when any node fails.
	)
	s.Ports = append(s.Ports, bus)
	s.Check = func(ctx context.Context) state.Health { return g.view().node(p) }
	configured := s.Prepare
	s.Prepare = func(ctx context.Context) ([]string, error) {
		g.awaitReplacement(ctx, p)
		return configured(ctx)
	}
	return s, err
}

// awaitReplacement delays the start of a primary that died until the others have promoted another node, for
// at most replaceWait or until ctx is done: a quick restart would prevent the promotion (see replicaOf). The node
// becomes a Redis replica once it rejoins.
func (g *clusterGroup) awaitReplacement(ctx context.Context, self peer) {
	if !g.view().canReplace(self) {
		return
	}
	g.log.Info(heldBack, "process", self.name, "at_most", replaceWait)
	wait, cancel := context.WithTimeout(ctx, replaceWait)
	defer cancel()
	poll.Until(wait, func() bool { return !g.view().canReplace(self) })
}

// nodeView is the state of a node of the cluster, as the node itself reports it.
type nodeView struct {
	serverView
	ok      bool     // cluster_state is ok: the cluster serves
	known   int      // cluster_known_nodes, itself included
	slots   []string // ranges that it owns, such as "0-5460"
	covered int      // number of slots with an owner
	epoch   int      // cluster_current_epoch
	posts   bool     // it owns the slot of the posts
	lists   []string // addresses of the Redis replicas of all primaries
}

// viewNode requests the state of a node.
func (g *clusterGroup) viewNode(ctx context.Context, p peer) nodeView {
	c := redisClient(p.addr, g.password)
	defer c.Close()
	v := nodeView{serverView: viewServer(ctx, c, p)}
	if v.err != nil {
		return v
	}
	info, err1 := c.ClusterInfo(ctx).Result()
	ranges, err2 := redisnode.AskCluster(ctx, c, p.addr)
	if v.err = errors.Join(err1, err2); v.err != nil {
		return v
	}
	v.ok = strings.Contains(info, "cluster_state:ok")
	v.known = infoNumber(info, "cluster_known_nodes")
	v.covered = infoNumber(info, "cluster_slots_assigned")
	v.epoch = infoNumber(info, "cluster_current_epoch")
	slot := redisnode.Slot(g.key)
	for _, r := range ranges {
		for i, n := range r.Nodes {
			if i > 0 {
				v.lists = append(v.lists, n.Addr)
			}
		}
		if len(r.Nodes) == 0 || r.Nodes[0].Addr != p.addr {
			continue
		}
		v.slots = append(v.slots, fmt.Sprintf("%d-%d", r.Start, r.End))
		v.posts = v.posts || r.Start <= slot && slot <= r.End
	}
	return v
}

// infoNumber returns a number in an answer of lines "name:value", 0 when it is absent.
func infoNumber(info, name string) int {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}

// clusterView is the state of all nodes at one time.
type clusterView struct {
	nodes []nodeView
}

// view requests the state of every node.
func (g *clusterGroup) view() clusterView {
	return g.views.do(func(ctx context.Context) clusterView {
		l := clusterView{nodes: make([]nodeView, len(g.nodes))}
		var all sync.WaitGroup
		for i, p := range g.nodes {
			all.Go(func() { l.nodes[i] = g.viewNode(ctx, p) })
		}
		all.Wait()
		return l
	})
}

// canReplace reports whether the other nodes can promote one of them in place of self: self has a Redis replica, and a
// majority of the primaries is up to elect it.
func (l clusterView) canReplace(self peer) bool {
	voters, follower := 0, false
	for _, v := range l.nodes {
		switch {
		case v.err != nil || v.peer == self:
		case v.primary && len(v.slots) > 0:
			voters++
		case !v.primary && v.upstream == self.addr:
			follower = true
		}
	}
	return follower && voters > clusterPrimaries/2
}

func (l clusterView) name(addr string) string {
	for _, v := range l.nodes {
		if v.addr == addr {
			return v.name
		}
	}
	return addr
}

// answering returns the number of nodes that answer.
func (l clusterView) answering() (n int) {
	for _, v := range l.nodes {
		if v.err == nil {
			n++
		}
	}
	return n
}

// listedBy returns the number of nodes that list the one at addr as a Redis replica. A new Redis replica cannot
// take over before they do.
func (l clusterView) listedBy(addr string) (n int) {
	for _, v := range l.nodes {
		if v.err == nil && slices.Contains(v.lists, addr) {
			n++
		}
	}
	return n
}

// node returns the health of a node.
func (l clusterView) node(p peer) state.Health {
	v := l.nodes[slices.IndexFunc(l.nodes, func(v nodeView) bool { return v.peer == p })]
	h := v.health(l.name)
	if !h.Ready {
		return h
	}
	switch {
	case v.primary && len(v.slots) == 0:
		h.Note, h.Detail = "", "has no slots and follows no primary"
	case v.primary && v.posts:
		h.Note = "primary of the posts, slots " + strings.Join(v.slots, ", ")
	case v.primary:
		h.Note = "primary, slots " + strings.Join(v.slots, ", ")
	}
	switch {
	case !v.ok:
		h.Ready, h.Detail = false, "the cluster is down: this node does not reach a majority of the primaries"
	case h.Detail != "":
	case !v.primary && l.listedBy(p.addr) < l.answering():
		h.Detail = fmt.Sprintf("only %d of %d nodes list it as a Redis replica yet", l.listedBy(p.addr), l.answering())
	case v.known < len(l.nodes):
		h.Detail = fmt.Sprintf("lists %d of %d nodes", v.known, len(l.nodes))
	case v.covered < clusterSlots:
		h.Detail = fmt.Sprintf("%d of %d slots have no owner", clusterSlots-v.covered, clusterSlots)
	case v.primary && v.replicas == 0:
		h.Detail = "no Redis replica is connected"
	}
	return h
}

// form joins the running nodes into one cluster. It keeps the configuration that it finds, so it also completes a
// creation that was interrupted, and rejoins nodes whose ports were changed. It blocks until that is done or ctx ends.
func (g *clusterGroup) form(ctx context.Context) error {
	var l clusterView
	if !poll.Until(ctx, func() bool {
		l = g.view()
		return !slices.ContainsFunc(l.nodes, func(v nodeView) bool { return v.err != nil || v.loading })
	}) {
		if slices.ContainsFunc(l.nodes, func(v nodeView) bool { return v.covered == clusterSlots }) {
			return nil // the cluster exists; only a node is missing
		}
		return fmt.Errorf("create the cluster: not every node answers: %w", context.Cause(ctx))
	}
	steps := []func(context.Context, clusterView) error{g.meet, g.assignSlots, g.assignReplicas}
	for _, step := range steps {
		if err := step(ctx, g.view()); err != nil {
			return fmt.Errorf("create the cluster: %w", err)
		}
	}
	return nil
}

// meet introduces the nodes to each other.
func (g *clusterGroup) meet(ctx context.Context, l clusterView) error {
	fresh := !slices.ContainsFunc(l.nodes, func(v nodeView) bool { return v.known > 1 || v.covered > 0 || v.epoch > 0 })
	known := !slices.ContainsFunc(l.nodes, func(v nodeView) bool { return v.known < len(g.nodes) })
	if known {
		wait, cancel := context.WithTimeout(ctx, reunionWait)
		defer cancel()
		if g.awaitAll(wait, "find each other", func(v nodeView) bool { return v.ok }) == nil {
			return nil
		}
	}
	for i, v := range l.nodes {
		if !fresh {
			break
		}
		// Distinct epochs avoid a conflict that the nodes would have to resolve later.
		if err := g.sendCommand(ctx, v.addr, "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
	}
	for i := range g.nodes[1:] {
		n := g.nodes[i+1]
		_, number, _ := strings.Cut(n.addr, ":")
		if err := g.sendCommand(ctx, g.nodes[0].addr, "CLUSTER", "MEET", supervisor.Host, number, g.busPort+i+1); err != nil {
			return err
		}
	}
	return g.awaitAll(ctx, "list all others", func(v nodeView) bool { return v.known == len(g.nodes) })
}

// assignSlots distributes slots without an owner to the first nodes.
func (g *clusterGroup) assignSlots(ctx context.Context, l clusterView) error {
	if slices.ContainsFunc(l.nodes, func(v nodeView) bool { return v.covered == clusterSlots }) {
		return nil
	}
	for i, v := range l.nodes[:clusterPrimaries] {
		if len(v.slots) > 0 {
			continue
		}
		first, next := i*clusterSlots/clusterPrimaries, (i+1)*clusterSlots/clusterPrimaries
		if err := g.sendCommand(ctx, v.addr, "CLUSTER", "ADDSLOTSRANGE", first, next-1); err != nil {
			return err
		}
	}
	return g.awaitAll(ctx, "agree that every slot has an owner", func(v nodeView) bool { return v.covered == clusterSlots && v.ok })
}

// assignReplicas makes each node without slots the Redis replica of a primary that has none.
func (g *clusterGroup) assignReplicas(ctx context.Context, l clusterView) error {
	var bare []peer // primaries without a Redis replica
	for _, v := range l.nodes {
		if v.primary && len(v.slots) > 0 && !slices.ContainsFunc(l.nodes, func(r nodeView) bool { return !r.primary && r.upstream == v.addr }) {
			bare = append(bare, v.peer)
		}
	}
	for _, v := range l.nodes {
		if !v.primary || len(v.slots) > 0 || len(bare) == 0 {
			continue
		}
		c := redisClient(bare[0].addr, g.password)
		id, err := c.ClusterMyID(ctx).Result()
		c.Close()
		if err != nil {
			return err
		}
		if err := g.sendCommand(ctx, v.addr, "CLUSTER", "REPLICATE", id); err != nil {
			return err
		}
		bare = bare[1:]
	}
	return nil
}

// awaitAll waits until ok holds for every node; what describes the condition in the error.
func (g *clusterGroup) awaitAll(ctx context.Context, what string, ok func(nodeView) bool) error {
	if !poll.Until(ctx, func() bool {
		return !slices.ContainsFunc(g.view().nodes, func(v nodeView) bool { return v.err != nil || !ok(v) })
	}) {
		return fmt.Errorf("the nodes do not %s in time", what)
	}
	return nil
}

// sendCommand sends a command to a server, once.
func (g *clusterGroup) sendCommand(ctx context.Context, addr string, args ...any) error {
	c := redisClient(addr, g.password)
	defer c.Close()
	if err := c.Do(ctx, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("%v %v on %s: %w", args[0], args[1], addr, err)
	}
	return nil
}
