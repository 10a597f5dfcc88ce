package redistest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
)

const (
	numShards = 3
	numSlots  = 16384
)

// clusterMode is a server's part in a Redis Cluster.
type clusterMode int

const (
	noCluster     clusterMode = iota
	wholeCluster              // a cluster of one node that owns every slot
	clusterMember             // a node of a ClusterDeployment
)

// ClusterDeployment is a Redis Cluster of three primaries with one Redis replica each. A node that is silent
// for 2 s counts as down; change that with Config("cluster-node-timeout 5000").
type ClusterDeployment struct {
	t       testing.TB
	servers []*Server
}

// StartCluster starts six servers with opts and blocks until the cluster is stable. The servers are stopped
// when the test ends.
func StartCluster(t testing.TB, opts ...Option) *ClusterDeployment {
	t.Helper()
	c := &ClusterDeployment{t: t}
	member := func(o *options) { o.cluster = clusterMember }
	for range 2 * numShards {
		s := Start(t, append([]Option{member}, opts...)...)
		id, err := s.command("CLUSTER", "MYID")
		if err != nil {
			t.Fatal(err)
		}
		s.nodeID = id
		c.servers = append(c.servers, s)
	}
	c.must(c.meet())
	bounds := []int{0, numSlots / numShards, 2 * numSlots / numShards, numSlots}
	if given := c.servers[0].opts.shards; given != [numShards]int{} {
		copy(bounds, given[:])
	}
	for i, primary := range c.servers[:numShards] {
		_, err := primary.command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i+1]-1)
		c.must(err)
		_, err = c.servers[numShards+i].command("CLUSTER", "REPLICATE", primary.nodeID)
		c.must(err)
	}
	c.WaitStable()
	return c
}

// meet introduces all nodes to each other.
func (c *ClusterDeployment) meet() error {
	c.t.Helper()
	for i, s := range c.servers {
		// Distinct epochs, because the nodes would have to resolve a conflict of equal ones first.
		if _, err := s.command("CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
	}
	for _, s := range c.servers[1:] {
		host, port, _ := net.SplitHostPort(s.Announced())
		busPort := strconv.Itoa(s.busPort())
		if s.busProxy != nil {
			_, busPort, _ = net.SplitHostPort(s.busProxy.Addr())
		}
		if _, err := c.servers[0].command("CLUSTER", "MEET", host, port, busPort); err != nil {
			return err
		}
	}
	settle(c.t, "the cluster nodes have not discovered each other", func() error {
		for _, s := range c.servers {
			known, err := s.clusterView()
			if err != nil {
				return err
			}
			for _, other := range c.servers {
				if n, ok := known[other.nodeID]; !ok || n.has("handshake") {
					return fmt.Errorf("%s has not discovered %s", s.Addr(), other.Addr())
				}
			}
		}
		return nil
	})
	return nil
}

func (s *Server) busPort() int { return s.port.number + busOffset }

func (s *Server) clusterConfig() []string {
	lines := []string{
		"cluster-enabled yes",
		"cluster-announce-ip 127.0.0.1",
		// The default, the port plus 10,000, is in the range of ephemeral ports.
		"cluster-port " + strconv.Itoa(s.busPort()),
	}
	if s.opts.cluster == clusterMember {
		lines = append(lines, "cluster-node-timeout 2000")
	}
	return lines
}

// Addrs returns the addresses of all nodes, for clients.
func (c *ClusterDeployment) Addrs() []string {
	var addrs []string
	for _, s := range c.servers {
		addrs = append(addrs, s.Announced())
	}
	return addrs
}

// Servers returns all six servers, in any role. The first three started as primaries.
func (c *ClusterDeployment) Servers() []*Server { return c.servers }

// Slot returns the hash slot of a key.
func (c *ClusterDeployment) Slot(key string) int {
	c.t.Helper()
	var failures []error
	for _, s := range c.servers {
		if err := s.running(); err != nil {
			failures = append(failures, err)
			continue
		}
		slot, err := s.do(queryTimeout, "CLUSTER", "KEYSLOT", key).Int()
		if err == nil {
			return slot
		}
		failures = append(failures, err)
	}
	c.t.Fatalf("no node computes the slot of %q: %v", key, errors.Join(failures...))
	return 0
}

// Owner returns the primary that owns the key's slot according to the reachable server with the newest
// epoch.
func (c *ClusterDeployment) Owner(key string) *Server {
	c.t.Helper()
	return c.OwnerOf(c.Slot(key))
}

// OwnerOf is Owner for a slot.
func (c *ClusterDeployment) OwnerOf(slot int) *Server {
	c.t.Helper()
	var owner *Server
	epoch := -1
	for _, s := range c.servers {
		self, err := s.clusterSelf()
		if err == nil && self.has("master") && self.owns(slot) && self.epoch > epoch {
			owner, epoch = s, self.epoch
		}
	}
	if owner == nil {
		c.t.Fatalf("no reachable server owns slot %d", slot)
	}
	return owner
}

// ReplicaOf returns the Redis replica of primary, according to the replica.
func (c *ClusterDeployment) ReplicaOf(primary *Server) *Server {
	c.t.Helper()
	for _, s := range c.servers {
		if self, err := s.clusterSelf(); err == nil && self.primary == primary.nodeID {
			return s
		}
	}
	c.t.Fatalf("%s has no reachable Redis replica", primary.Addr())
	return nil
}

// Failover promotes a Redis replica whose primary is alive (CLUSTER FAILOVER) and blocks until it is the
// primary.
func (c *ClusterDeployment) Failover(replica *Server) {
	c.t.Helper()
	if _, err := replica.command("CLUSTER", "FAILOVER"); err != nil {
		c.t.Fatal(err)
	}
	c.WaitPrimary(replica)
}

// WaitPrimary waits until s, a Redis replica so far, reports itself as a primary with slots. Other servers
// may learn of that later; WaitStable waits for all.
func (c *ClusterDeployment) WaitPrimary(s *Server) {
	c.t.Helper()
	settle(c.t, s.Addr()+" is not a primary of the cluster", func() error {
		self, err := s.clusterSelf()
		if err == nil && (!self.has("master") || len(self.slots) == 0) {
			err = fmt.Errorf("it is %v with slots %v", self.flags, self.slots)
		}
		return err
	})
}

// WaitStable waits until all six servers run, agree on the owner of every slot, and every primary has a
// Redis replica in sync. Like all waits of a deployment it stops the test after a minute.
func (c *ClusterDeployment) WaitStable() {
	c.t.Helper()
	var view clusterView
	settle(c.t, "the cluster is not stable", func() (err error) {
		view, err = c.agreed()
		return err
	})
	for _, s := range c.servers {
		n := view[s.nodeID]
		for _, primary := range c.servers {
			if n.primary == primary.nodeID {
				s.WaitReplicaInSync(primary)
			}
		}
	}
}

// agreed returns the view of the cluster if all servers have the same view.
func (c *ClusterDeployment) agreed() (clusterView, error) {
	var first clusterView
	for _, s := range c.servers {
		info, err := s.clusterInfo()
		if err != nil {
			return nil, err
		}
		if !strings.Contains(info, "cluster_state:ok") {
			return nil, fmt.Errorf("%s: %s", s.Addr(), info)
		}
		view, err := s.clusterView()
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = view
		}
		if a, b := first.String(), view.String(); a != b {
			return nil, fmt.Errorf("the views of %s and %s differ:\n%s\n%s", c.servers[0].Addr(), s.Addr(), a, b)
		}
	}
	replicas := map[string]int{}
	for _, n := range first {
		if n.has("fail") || n.has("fail?") {
			return nil, fmt.Errorf("%s is %v", n.id, n.flags)
		}
		replicas[n.primary]++
	}
	// replicas[""] counts the primaries, which have no primary of their own.
	if len(first) != 2*numShards || len(replicas) != numShards+1 {
		return nil, fmt.Errorf("want %d primaries with one replica each:\n%v", numShards, first)
	}
	return first, nil
}

// Partition drops all traffic between the given servers and all others, without closing connections. Clients
// still reach both sides. All servers must be Proxied. A second partition adds to the first.
func (c *ClusterDeployment) Partition(nodes ...*Server) {
	c.t.Helper()
	partition(c.t, c.servers, nodes)
}

// Heal ends all faults of all proxies, including faults that the test itself has injected.
func (c *ClusterDeployment) Heal() { heal(c.servers) }

func (c *ClusterDeployment) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}
