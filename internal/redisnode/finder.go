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

// Node is a client of one server. It is closed when the Finder leaves it, unless it is held: calls on it
// fail then, and subscriptions end.
type Node struct {
	*redis.Client
	Addr string // host:port as it was found, or the path of a socket

	seen atomic.Pointer[seen] // when it was looked at last; nil where INFO is refused

	mu   sync.Mutex    // guards what follows
	held int           // calls of Hold without one of release
	left chan struct{} // nil until the Finder leaves the node, closed when it is held no more
}

// grace is how long a held node that was left keeps its connections at most. A server that answers at all
// has answered by then.
const grace = 250 * time.Millisecond

// Hold keeps the connections of n open after the Finder has left it, until release is called or grace is
// over: a command that is under way would otherwise lose its reply.
func (n *Node) Acquire() (release func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left != nil {
		return func() {}
	}
	n.held++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.held--; n.held == 0 && n.left != nil {
			close(n.left)
		}
	}
}

// leave closes the connections of n, once it is held no more. f.mu is held.
func (f *Finder) leave(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held == 0 {
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

// Finder finds the server and remembers it. Its methods may be called by many goroutines.
type Finder struct {
	cfg    Config
	source source
	period time.Duration // how often the source is asked whether the node is still right
	chain  *clients      // of the servers that the node replicates

	mu      sync.Mutex // guards what follows
	node    *Node      // nil while there is none
	last    string     // address of the node, or of the one before while there is none
	moves   uint64     // times that last has changed
	closed  bool
	used    time.Time     // when the node was asked for last
	next    *time.Timer   // of the next question; nil before the first
	asked   time.Time     // when the last question began
	asking  chan struct{} // closed when the question that is under way has ended; nil without one
	err     error         // of the last question, nil when it found a node
	pause   time.Duration // between two questions
	running sync.WaitGroup
}

// source tells which servers there are, best first.
type source interface {
	// candidates blocks until ctx is done at most. It is called by one goroutine at a time.
	candidates(ctx context.Context) ([]candidate, error)
	// close ends the connections of the source.
	close()
}

// candidate is a server that may be the right one.
type candidate struct {
	addr string
	name string // host that the source knows it by, for certificates
}

// Pauses between questions to the source when no server was found.
const (
	minPause = 50 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// findTimeout bounds a question to the source and the look at its candidates.
const findTimeout = 2 * time.Second

// New returns a Finder. It does not connect.
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

// ErrClosed is returned by Node after Close.
var ErrClosed = errors.New("the finder is closed")

// Node returns the server to talk to. While there is none it blocks until one is found, a search fails
// or ctx is done; callers share a search, and searches that fail are some time apart. It also has the
// source asked in the background, at most once a period, whether the node is still the right one.
func (f *Finder) Node(ctx context.Context) (*Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed:
			return nil, ErrClosed
		case f.node != nil:
			f.used = time.Now()
			if f.used.Sub(f.asked) >= f.period {
				f.ask(false)
			}
			return f.node, nil
		}
		f.ask(false)
		done := f.asking
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

// ask begins to ask the source, unless that is under way, and not before the pause after the last
// question is over. With doubt, the node is looked at even if the source still names it. f.mu is held.
func (f *Finder) ask(doubt bool) {
	if f.asking != nil || f.closed {
		return
	}
	if f.next != nil {
		f.next.Stop()
	}
	done := make(chan struct{})
	wait := time.Until(f.asked.Add(f.pause))
	f.asking, f.asked = done, time.Now().Add(max(wait, 0))
	current := f.node
	f.running.Go(func() {
		time.Sleep(wait)
		ctx, cancel := context.WithTimeout(context.Background(), findTimeout)
		defer cancel()
		found, err := f.find(ctx, current, doubt)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asking = nil
		close(done)
		f.settle(current, found, err)
		// Calls may hang on a server that was paused, and nobody asks for the node meanwhile.
		if f.node != nil && time.Since(f.used) < usedLately {
			f.next = time.AfterFunc(f.period, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.ask(false)
			})
		}
	})
}

// usedLately is for how long the source is asked again without a call of Node, longer than any call on
// the node takes.
const usedLately = 5 * time.Second

// settle takes in the answer to a question that was asked while current was the node. f.mu is held.
func (f *Finder) settle(current, found *Node, err error) {
	switch {
	case f.closed || f.node != current: // left meanwhile: what was found may be what was left, so callers ask again
		if found != nil && found != f.node {
			_ = found.Close()
		}
		return
	case err != nil:
		f.err = err
		f.pause = min(2*f.pause, maxPause)
		return // a node that works is kept while nobody can tell whether it is right
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
	f.cfg.Logger.Warn("Redis has moved; closing all connections to the old server", "from", current.Addr, "to", found.Addr)
	f.leave(current)
}

// find asks the source and returns current, if it is among the candidates, or the first candidate
// that has the wanted role.
func (f *Finder) find(ctx context.Context, current *Node, doubt bool) (*Node, error) {
	candidates, err := f.source.candidates(ctx)
	if err != nil {
		return nil, err
	}
	var reasons []error
	named := current != nil && slices.ContainsFunc(candidates, func(c candidate) bool { return c.addr == current.Addr })
	if named {
		if !doubt {
			return current, nil
		}
		err := f.look(ctx, current)
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
		if err := f.look(ctx, n); err != nil {
			_ = n.Close()
			reasons = append(reasons, fmt.Errorf("%s: %w", c.addr, err))
			continue
		}
		return n, nil
	}
	return nil, fmt.Errorf("no Redis %s: %w", f.cfg.ReadFrom, oneLine(reasons))
}

// ErrNotPrimary says that a server is a Redis replica where a primary is wanted.
var ErrNotPrimary = errors.New("the server is not a primary")

// Leave gives n up, because of err: all its connections are closed, unless they are held, and the next
// Node searches again. It does nothing when n was left before.
func (f *Finder) Leave(n *Node, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != n || n == nil {
		return
	}
	f.cfg.Logger.Warn("leaving the Redis server", "addr", n.Addr, "err", err)
	f.node, f.err = nil, nil
	f.leave(n)
}

// Doubt has the source asked in the background whether n is still the right server, because a call on
// it failed with err. An error that says that it is not makes the Finder leave n at once.
func (f *Finder) ReportError(n *Node, err error) {
	if Refused(err) {
		f.Leave(n, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == n {
		f.ask(true)
	}
}

// Refused reports whether err says that the server did not run a command because it is not the right
// one: a Redis replica without a primary, or the node of another shard.
func Refused(err error) bool {
	for _, prefix := range []string{"READONLY", "MOVED", "MASTERDOWN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return errors.Is(err, ErrNotPrimary)
}

// Close closes the node. It blocks until a question to the source that is under way has ended,
// findTimeout at most.
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
	f.chain.keep(nil)
	if n != nil {
		return n.Close()
	}
	return nil
}
