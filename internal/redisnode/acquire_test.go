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

// A command that is under way at a node that is left gets its reply when the node is held, within limits.
func TestHeldNode(t *testing.T) {
	server := redistest.StartEmbedded(t)
	link := faultnet.NewProxy(t, server.Addr())
	f := finder(t, Config{Addrs: []string{link.Addr()}})
	closed := func(n *Node) bool { return errors.Is(n.Ping(t.Context()).Err(), redis.ErrClosed) }

	n := node(t, f)
	f.Leave(n, errors.New("test"))
	if !closed(n) {
		t.Error("a node that nobody holds is not closed at once")
	}

	n = node(t, f)
	release, other := n.Acquire(), n.Acquire()
	if err := n.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	link.Delay(faultnet.ToClient, grace/5)
	reply := make(chan error, 1)
	go func() { reply <- n.Ping(t.Context()).Err() }()
	eventually.True(t, "command that is under way", func() bool { return n.PoolStats().IdleConns == 0 })
	f.Leave(n, errors.New("test"))
	if err := <-reply; err != nil {
		t.Errorf("a command at a node that is held: %v", err)
	}
	other()
	release()
	eventually.True(t, "node that was released and is closed", func() bool { return closed(n) })
	link.Heal()
	n.Acquire()() // of a node that was left long ago

	n = node(t, f)
	_ = n.Acquire()
	began := time.Now()
	f.Leave(n, errors.New("test"))
	eventually.True(t, "node that is held for too long and is closed", func() bool { return closed(n) })
	if took := time.Since(began); took < grace {
		t.Errorf("closed after %v, want %v", took, grace)
	}
	n = node(t, f)
	_ = n.Acquire()
	f.Leave(n, errors.New("test"))
	if err := f.Close(); err != nil || !closed(n) {
		t.Errorf("the finder is closed, a node that it left is not: %v", err)
	}
}
