package redistest

import (
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
)

// FromClients cuts off the clients from every server, also after a failover, but not the nodes from each
// other.
func TestProxiedClientsAreCutOffAlone(t *testing.T) {
	Require(t)
	t.Parallel()
	o := calm
	o.All = []Option{Proxied()}
	o.Servers = []Option{Password("secret")} // AUTH precedes the bytes that distinguish a replica from a client
	d := StartSentinel(t, o)
	for _, s := range d.Servers() {
		s.FromClients().BlackHole(faultnet.ToServer, true)
	}
	primary := d.Failover()
	d.WaitStable() // both replicas connected to the new primary through its proxy

	options := clientOptions(primary.Announced(), "secret")
	options.ReadTimeout = 200 * time.Millisecond
	cut := newClient(t, options)
	if err := cut.Ping(t.Context()).Err(); !isTimeout(err) {
		t.Errorf("ping from a client that is cut off: %v, want a timeout", err)
	}
	d.Heal()
	eventually.Nil(t, func() error { return cut.Ping(t.Context()).Err() })
}

// From stalls the link of one replica, but not of the other one and of clients.
func TestProxiedReplicationIsHeldUpAlone(t *testing.T) {
	Require(t)
	primary := Start(t, Proxied())
	slow, quick := Start(t, Proxied(), ReplicaOf(primary.Proxy())), Start(t, ReplicaOf(primary.Proxy()))
	for _, s := range []*Server{slow, quick} {
		s.WaitReplicaInSync(primary)
		if n := primary.From(s).Connections(); n != 1 {
			t.Errorf("%d connections from %s, want 1", n, s.Addr())
		}
	}
	primary.From(slow).Stall(faultnet.ToClient, true)
	client := newClient(t, clientOptions(primary.Announced(), ""))
	set(t, client, "k", "v")
	quick.WaitReplicaInSync(primary)
	if n, err := slow.Client(t).Exists(t.Context(), "k").Result(); err != nil || n != 0 {
		t.Errorf("the stalled replica has %d keys, %v; want 0", n, err)
	}
	primary.Proxy().Heal()
	slow.WaitReplicaInSync(primary)
	wantValue(t, slow.Client(t), "k", "v")
}
