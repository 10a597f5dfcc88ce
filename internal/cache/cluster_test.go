package cache

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/faultnet"
	"heavy-read-api/internal/redistest"
)

// A write whose reply is lost is not repeated, by a client of a cluster neither: go-redis has a
// retry loop of its own there.
func TestLostReplyInACluster(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t, redistest.Cluster())
	proxy := faultnet.NewProxy(t, server.Addr())
	options := ClientOptions(proxy.Addr()).Cluster()
	options.ClusterSlots = func(context.Context) ([]redis.ClusterSlot, error) {
		return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: proxy.Addr()}}}}, nil
	}
	c := redis.NewClusterClient(options)
	t.Cleanup(func() { _ = c.Close() })
	p, err := NewPublisher(PublisherConfig{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	write(t, p, set("a", "1"))
	hook := proxy.OnceContains(faultnet.ToServer, "evalsha", faultnet.CutAtReply)
	if _, err := p.Write(t.Context(), set("a", "2")); !errors.Is(err, ErrUnknown) {
		t.Errorf("a write whose reply was lost: %v", err)
	}
	<-hook.Fired()
	if got := write(t, p, set("b", "3"))[0].Token.Version; got != 3 {
		t.Errorf("version %d after two writes, one of them with its reply lost", got)
	}
}
