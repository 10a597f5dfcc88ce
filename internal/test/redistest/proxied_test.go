package redistest

import (
	"testing"

	"heavy-read-api/internal/test/faultnet"
)

// From stalls the link of one replica, but not of the other one and of clients.
func TestProxiedReplicationIsStalledAlone(t *testing.T) {
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
