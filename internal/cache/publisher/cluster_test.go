package publisher

import (
	"net"
	"testing"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// In a Redis Cluster too, a write whose reply is lost is not sent again, and its outcome comes from the node that owns
// its slot.
func TestLostReplyInACluster(t *testing.T) {
	redistest.Require(t)
	proxy := faultnet.NewProxy(t, "127.0.0.1:1")
	_, port, err := net.SplitHostPort(proxy.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, redistest.Cluster(), redistest.Config("cluster-announce-ip 127.0.0.1", "cluster-announce-port "+port))
	proxy.SetTarget(server.Addr())
	p, err := New(Config{Redis: nodetest.New(t, proxy.Addr(), func(c *redisnode.Config) {
		c.Addrs, c.Key = []string{proxy.Addr(), server.Addr()}, protocol.ShardKey(protocol.DefaultNamespace)
	})})
	if err != nil {
		t.Fatal(err)
	}
	write(t, p, set("a", "1"))
	hook := proxy.OnceContains(faultnet.ToServer, "evalsha\r\n", faultnet.CutAtReply)
	if results, err := p.Write(t.Context(), set("a", "2")); err != nil || results[0].Token.Version != 2 {
		t.Errorf("a write whose reply was lost: %+v, %v", results, err)
	}
	<-hook.Fired()
	if got := write(t, p, set("b", "3"))[0].Token.Version; got != 3 {
		t.Errorf("version %d after two writes, one of them with its reply lost", got)
	}
}
