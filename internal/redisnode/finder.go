package redisnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Node is a client of one server, owned by the Finder. When the Finder leaves the server, it closes the
// Node as soon as nobody holds it: calls on it fail from then on, and its subscriptions end.
type Node struct {
	*redis.Client
	Addr string // resolved host:port, or the path of a socket

	info atomic.Pointer[serverInfo] // from the last INFO; nil if INFO is refused

	mu      sync.Mutex    // guards the fields below
	holders int           // calls of Acquire that have not been released
	left    chan struct{} // nil until the Finder leaves the node; closed by the last release
}

// grace bounds how long the connections of a held node stay open after the Finder has left it. A server
// that is still working replies well within it.
const grace = 250 * time.Millisecond

// Acquire keeps the connections of n open until release is called or grace has passed after the Finder left
// n, so that a command in flight still receives its reply. It does not block. On a node that was already
// left it has no effect.
func (n *Node) Acquire() (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left != nil {
		return func() {}
	}
	n.holders++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.holders--; n.holders == 0 && n.left != nil {
			close(n.left)
		}
	}
}

// closeNode closes n at once if nobody holds it, else in the background. f.mu must be held.
func (f *Finder) closeNode(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.holders == 0 {
		_ = n.Close()
		return
	}
	left := make(chan struct{})
	n.left = left
	f.running.Go(func() {
		select {
		case <-left:
		case <-time.After(grace):
		}
		_ = n.Close()
	})
}

// Finder discovers the server and keeps a Node for it. It is safe for concurrent use.
type Finder struct {
	cfg    Config
	source source
	period time.Duration // interval of the background searches
	chain  *clients      // clients of the servers upstream of the node

	mu        sync.Mutex // guards the fields below
	node      *Node      // nil while no server is found
	last      string     // address of node, or of the previous one while node is nil
	moves     uint64     // number of changes of last
	closed    bool
	used      time.Time     // time of the last call of Node
	next      *time.Timer   // starts the next background search; nil before the first one
	started   time.Time     // start of the last search
	searching chan struct{} // closed when the search in flight ends; nil if there is none
	err       error         // error of the last search
	pause     time.Duration // minimum time between the starts of two searches
	running   sync.WaitGroup
}

// source lists the servers that may be the right one, in order of preference.
type source interface {
	// candidates blocks until it has an answer or ctx is done. Calls are never concurrent.
	candidates(ctx context.Context) ([]candidate, error)
	// close closes the connections of the source.
	close()
}

// candidate is a server that may be the right one.
type candidate struct {
	addr string
	name string // host name that its TLS certificate must have
}

// minPause and maxPause bound the backoff between searches that fail.
const (
	minPause = 50 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// findTimeout bounds one search: the queries to the source and to its candidates.
const findTimeout = 2 * time.Second

// New returns a Finder, or an error that says what to change in the configuration. It does not connect.
func New(cfg Config) (*Finder, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	f := &Finder{cfg: cfg, pause: minPause}
	f.chain = newClients(func(addr string) *redis.Options { return f.cfg.options(addr, host(addr)) })
	switch {
	case cfg.MasterName != "":
		f.source, f.period = newSentinels(&f.cfg), 500*time.Millisecond
	case len(cfg.Addrs) > 1:
		f.source, f.period = newCluster(&f.cfg), time.Second
	default:
		f.source, f.period = &name{cfg: &f.cfg}, 2*time.Second
	}
	return f, nil
}

// errClosed is returned by Node after Close.
var errClosed = errors.New("the finder is closed")

// Node returns the server in use. If there is none, it blocks until one is found, a search fails or ctx is
// done. Concurrent callers share one search, and searches that fail back off. At most once a period a call
// also starts a search in the background, which moves to another server if the source names one.
func (f *Finder) Node(ctx context.Context) (*Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed:
			return nil, errClosed
		case f.node != nil:
			f.used = time.Now()
			if f.used.Sub(f.started) >= f.period {
				f.search(false)
			}
			return f.node, nil
		}
		f.search(false)
		done := f.searching
		f.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if err := cmp.Or(f.err, ctx.Err()); f.node == nil && err != nil {
			return nil, err
		}
	}
}

// search starts a search in the background unless one is in flight; the search waits until pause has
// passed since the last one. With recheck it verifies the current node even if the source still names it.
// f.mu must be held.
func (f *Finder) search(recheck bool) {
	if f.searching != nil || f.closed {
		return
	}
	if f.next != nil {
		f.next.Stop()
	}
	done := make(chan struct{})
	wait := time.Until(f.started.Add(f.pause))
	f.searching, f.started = done, time.Now().Add(max(wait, 0))
	current := f.node
	f.running.Go(func() {
		time.Sleep(wait)
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		found, err := f.find(ctx, current, recheck)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.searching = nil
		close(done)
		f.finish(current, found, err)
		// Schedule the next search, because nobody calls Node while all calls hang on a paused server.
		if f.node != nil && time.Since(f.used) < usedLately {
			f.next = time.AfterFunc(f.period, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.search(false)
			})
		}
	})
}

// usedLately is how long background searches continue after the last call of Node. It is longer than any
// call on the node takes.
const usedLately = 5 * time.Second

// finish applies the result of a search that started while current was the node. f.mu must be held.
func (f *Finder) finish(current, found *Node, err error) {
	switch {
	case f.closed || f.node != current: // current was left during the search, and found may be that same server: search again
		if found != nil && found != f.node {
			_ = found.Close()
		}
		return
	case err != nil:
		f.err = err
		f.pause = min(2*f.pause, maxPause)
		return // keep a working node while the source is unreachable
	}
	f.err, f.pause = nil, minPause
	if found == current {
		return
	}
	f.node = found
	if f.last != "" && f.last != found.Addr {
		f.moves++
	}
	f.last = found.Addr
	if current == nil {
		f.cfg.Logger.Info("connected to Redis", "addr", found.Addr)
		return
	}
	f.cfg.Logger.Warn("Redis has moved to another server; closing all connections to the old one", "from", current.Addr, "to", found.Addr)
	f.closeNode(current)
}

// find queries the source. It returns current if that is among the candidates, else the first candidate with
// the required role.
func (f *Finder) find(ctx context.Context, current *Node, recheck bool) (*Node, error) {
	candidates, err := f.source.candidates(ctx)
	if err != nil {
		return nil, err
	}
	var reasons []error
	named := current != nil && slices.ContainsFunc(candidates, func(c candidate) bool { return c.addr == current.Addr })
	if named {
		if !recheck {
			return current, nil
		}
		err := f.inspect(ctx, current)
		if err == nil {
			return current, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", current.Addr, err))
	}
	for _, c := range candidates {
		if named && c.addr == current.Addr {
			continue
		}
		n := &Node{Client: redis.NewClient(f.cfg.options(c.addr, c.name)), Addr: c.addr}
		if err := f.inspect(ctx, n); err != nil {
			_ = n.Close()
			reasons = append(reasons, fmt.Errorf("%s: %w", c.addr, err))
			continue
		}
		return n, nil
	}
	return nil, fmt.Errorf("no Redis %s: %w", f.cfg.ReadFrom, oneLine(reasons))
}

// ErrNotPrimary means that the server is a Redis replica although a primary is required.
var ErrNotPrimary = errors.New("the server is not a primary")

// Leave stops using n because of err, which it logs: it closes the connections of n (see Node.Acquire), and
// the next call of Node starts a search. It does not block, and does nothing if n is not the current node.
func (f *Finder) Leave(n *Node, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != n || n == nil {
		return
	}
	f.cfg.Logger.Warn("disconnecting from the Redis server and searching for another one", "addr", n.Addr, "err", err)
	f.node, f.err = nil, nil
	f.closeNode(n)
}

// ReportError reports that a call on n failed with err. The Finder leaves n at once if Refused(err), and
// otherwise verifies in the background that n is still the right server. ReportError does not block.
func (f *Finder) ReportError(n *Node, err error) {
	if Refused(err) {
		f.Leave(n, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == n {
		f.search(true)
	}
}

// Refused reports whether err proves that the server did not run the command because it is the wrong
// server: a Redis replica, or the node of another shard.
func Refused(err error) bool {
	for _, prefix := range []string{"READONLY", "MOVED", "MASTERDOWN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return errors.Is(err, ErrNotPrimary)
}

// Close closes the node and ends the searches. It blocks until the search in flight has ended, at most
// findTimeout.
func (f *Finder) Close() error {
	f.mu.Lock()
	f.closed = true
	n := f.node
	f.node = nil
	if f.next != nil {
		f.next.Stop()
	}
	f.mu.Unlock()
	f.running.Wait()
	f.source.close()
	f.chain.closeExcept(nil)
	if n != nil {
		return n.Close()
	}
	return nil
}
