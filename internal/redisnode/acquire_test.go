package redisnode

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/redistest"
)

// When the Finder leaves a node, a command in flight still receives its reply if the node is held, but only
// for the grace period.
func TestHeldNode(t *testing.T) {
	server := redistest.StartEmbedded(t)
	link := faultnet.NewProxy(t, server.Addr())
	f := finder(t, Config{Addrs: []string{link.Addr()}})
	closed := func(n *Node) bool { return errors.Is(n.Ping(t.Context()).Err(), redis.ErrClosed) }

	n := node(t, f)
	f.Leave(n, errors.New("test"))
	if !closed(n) {
		t.Error("a node without holders was not closed at once")
	}

	n = node(t, f)
	release, other := n.Acquire(), n.Acquire()
	if err := n.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	link.Delay(faultnet.ToClient, grace/5)
	reply := make(chan error, 1)
	go func() { reply <- n.Ping(t.Context()).Err() }()
	eventually.True(t, "command in flight", func() bool { return n.PoolStats().IdleConns == 0 })
	f.Leave(n, errors.New("test"))
	if err := <-reply; err != nil {
		t.Errorf("a command in flight on a held node: %v", err)
	}
	other()
	release()
	eventually.True(t, "node closed after the last release", func() bool { return closed(n) })
	link.Heal()
	n.Acquire()() // no effect on a node that was left

	n = node(t, f)
	_ = n.Acquire()
	began := time.Now()
	f.Leave(n, errors.New("test"))
	eventually.True(t, "node closed after the grace period", func() bool { return closed(n) })
	if took := time.Since(began); took < grace {
		t.Errorf("closed after %v, want %v", took, grace)
	}
	n = node(t, f)
	_ = n.Acquire()
	f.Leave(n, errors.New("test"))
	if err := f.Close(); err != nil || !closed(n) {
		t.Errorf("closing the finder did not close a node that it had left: %v", err)
	}
}
