package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Numbers of consecutive results that change the health of a reader.
const (
	healthyAfter   = 2 // passed checks; a reader of unknown health needs one
	unhealthyAfter = 2 // failed checks
	refusedLimit   = 2 // requests whose connection was refused or reset
)

type health int

const (
	unknown health = iota
	healthy
	unhealthy
)

// node is a reader.
type node struct {
	addr string                 // host:port
	stop context.CancelFunc     // ends its checks
	pool pool                   // idle connections to it
	post atomic.Pointer[series] // metrics of requests for postPath that were sent to it

	refused    atomic.Int32 // requests since the last answer whose connection was refused or reset
	lastAnswer atomic.Int64 // time of the last answer, in Unix nanoseconds, at most 10 ms old

	// Guarded by nodes.mu.
	health         health
	passed, failed int    // consecutive checks
	reason         string // why it is not healthy
}

// nodes is the list of readers and their health.
type nodes struct {
	log   *slog.Logger
	pools *pools
	check func(context.Context, *node) // checks one node until the context ends

	mu     sync.Mutex // guards list and the health of its nodes; held while view is replaced
	list   []*node
	checks sync.WaitGroup

	view atomic.Pointer[view] // copy of list for pick, which takes no lock
	turn atomic.Uint64        // position of the round robin
}

// view is an immutable copy of the list.
type view struct{ all, ready []*node }

func newNodes(log *slog.Logger, pools *pools) *nodes {
	p := &nodes{log: log, pools: pools}
	p.view.Store(&view{})
	return p
}

// set replaces the list. Readers that stay keep their health. Each new reader is checked until ctx is done or it is
// removed.
func (p *nodes) set(ctx context.Context, addrs []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]*node, 0, len(addrs))
	for _, addr := range addrs {
		if i := p.indexOf(addr); i >= 0 {
			list = append(list, p.list[i])
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		n := &node{addr: addr, stop: stop, pool: pool{addr: addr, shared: p.pools}, reason: "not checked yet"}
		p.checks.Go(func() { p.check(ctx, n) })
		list = append(list, n)
		p.log.Info("reader added", "reader", addr)
	}
	for _, old := range p.list {
		if !slices.Contains(list, old) {
			old.stop()
			old.pool.retire()
			p.log.Info("reader removed", "reader", old.addr)
		}
	}
	p.list = list
	p.publish()
}

func (p *nodes) indexOf(addr string) int {
	return slices.IndexFunc(p.list, func(n *node) bool { return n.addr == addr })
}

// wait blocks until all checks have ended. Their context must be done.
func (p *nodes) wait() { p.checks.Wait() }

// retire closes the idle connections to all readers.
func (p *nodes) retire() {
	for _, n := range p.view.Load().all {
		n.pool.retire()
	}
}

// publish replaces the view. The caller holds mu.
func (p *nodes) publish() {
	v := &view{all: p.list}
	for _, n := range p.list {
		if n.health == healthy {
			v.ready = append(v.ready, n)
		}
	}
	p.view.Store(v)
}

// pick returns the next ready reader in round robin that has not been tried. When no ready reader is left it returns one
// that is not ready, and nil when all have been tried.
func (p *nodes) pick(tried []*node) *node {
	v := p.view.Load()
	turn := p.turn.Add(1) - 1
	for _, candidates := range [][]*node{v.ready, v.all} {
		for i := range uint64(len(candidates)) {
			if n := candidates[(turn+i)%uint64(len(candidates))]; !slices.Contains(tried, n) {
				return n
			}
		}
	}
	return nil
}

// answered records that n answered a request. The status does not matter: a 5xx is the reader's answer to one client and
// no sign that the reader is down.
func (n *node) answered() {
	// Usually nothing changes, and a load without a store keeps the cache line shared between cores.
	if n.refused.Load() != 0 {
		n.refused.Store(0)
	}
	if now := time.Now().UnixNano(); now-n.lastAnswer.Load() > int64(10*time.Millisecond) {
		n.lastAnswer.Store(now)
	}
}

// answeredSince reports whether n has answered a request after t.
func (n *node) answeredSince(t time.Time) bool { return n.lastAnswer.Load() > t.UnixNano() }

// missed records that a request to n failed without an answer. refusedLimit of them without an answer in between make n
// unhealthy. Timeouts and shortages of the gateway's own resources do not count, because enough clients can cause either.
// The active checks detect a reader that hangs.
func (p *nodes) missed(n *node, err error) {
	if isTimeout(err) || isShortage(err) || n.refused.Add(1) < refusedLimit {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnUnhealthy(n, err)
}

// checked records the result of a check and returns whether n is ready afterwards. A check that failed for lack of the
// gateway's own resources is ignored.
func (p *nodes) checked(n *node, err error) (ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isShortage(err) {
		return n.health == healthy
	}
	if err != nil {
		n.passed = 0
		n.failed++
		if n.health != healthy {
			n.reason = err.Error()
		}
		if n.failed >= unhealthyAfter {
			p.turnUnhealthy(n, err)
		}
		return n.health == healthy
	}
	n.failed = 0
	n.passed++
	if n.health == unknown || n.health == unhealthy && n.passed >= healthyAfter {
		n.refused.Store(0)
		n.health, n.reason = healthy, ""
		p.log.Info("reader is ready", "reader", n.addr)
		p.publish()
	}
	return n.health == healthy
}

// turnUnhealthy takes n out of the rotation. The caller holds mu.
func (p *nodes) turnUnhealthy(n *node, err error) {
	if n.health == unhealthy {
		return // a request that fails late must not reset the count of passed checks
	}
	if n.health == unknown {
		p.log.Info("reader is not ready yet", "reader", n.addr, "err", err)
	} else {
		p.log.Warn("reader is not ready", "reader", n.addr, "err", err)
	}
	n.health, n.passed, n.reason = unhealthy, 0, err.Error()
	p.publish()
}

// status is the health of a reader as the gateway reports it.
type status struct {
	addr   string
	ready  bool
	reason string // why it is not ready
}

func (p *nodes) statuses() []status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]status, len(p.list))
	for i, n := range p.list {
		all[i] = status{addr: n.addr, ready: n.health == healthy, reason: n.reason}
	}
	return all
}
