package redistest

import (
	"context"
	"fmt"
	"os/exec"
)

// Migration moves a hash slot from one primary to another, key by key, in steps. Until End the old owner
// serves the keys that it still has and redirects others with ASK. A command or script with several keys
// gets TRYAGAIN if some of them have moved.
type Migration struct {
	c        *ClusterDeployment
	slot     int
	from, to *Server
}

// BeginMigration opens a slot for the migration from its owner to the primary to. It moves no keys.
func (c *ClusterDeployment) BeginMigration(slot int, to *Server) *Migration {
	c.t.Helper()
	m := &Migration{c: c, slot: slot, from: c.OwnerOf(slot), to: to}
	if m.from == to {
		c.t.Fatalf("migrate slot %d: %s owns it already", slot, to.Addr())
	}
	m.setSlot(to, "IMPORTING", m.from.nodeID) // first, so that it accepts the first redirect
	m.setSlot(m.from, "MIGRATING", to.nodeID)
	return m
}

// MigrateKeys moves up to n keys and returns the number of keys moved, which is less than n if the old owner
// has no more.
func (m *Migration) MigrateKeys(n int) int {
	m.c.t.Helper()
	keys, err := m.from.do(queryTimeout, "CLUSTER", "GETKEYSINSLOT", m.slot, n).StringSlice()
	if err != nil {
		m.c.t.Fatalf("keys of slot %d on %s: %v", m.slot, m.from.Addr(), err)
	}
	if len(keys) == 0 {
		return 0
	}
	args := []any{"MIGRATE", "127.0.0.1", m.to.Port(), "", 0, readyTimeout.Milliseconds()}
	if password := m.to.opts.password; password != "" {
		args = append(args, "AUTH", password)
	}
	args = append(args, "KEYS")
	for _, key := range keys {
		args = append(args, key)
	}
	if err := m.from.do(readyTimeout, args...).Err(); err != nil {
		m.c.t.Fatalf("migrate slot %d from %s to %s: %v", m.slot, m.from.Addr(), m.to.Addr(), err)
	}
	return len(keys)
}

// End moves the remaining keys, makes the target the owner of the slot, and blocks until all reachable
// servers agree.
func (m *Migration) End() {
	m.c.t.Helper()
	for m.MigrateKeys(1000) > 0 {
	}
	m.setSlot(m.to, "NODE", m.to.nodeID) // first, so that it does not redirect back to the old owner
	m.setSlot(m.from, "NODE", m.to.nodeID)
	m.c.waitOwner(m.slot, m.to)
}

// waitOwner waits until all reachable servers report owner as the owner of slot.
func (c *ClusterDeployment) waitOwner(slot int, owner *Server) {
	c.t.Helper()
	settle(c.t, fmt.Sprintf("slot %d has not moved to %s", slot, owner.Addr()), func() error {
		for _, s := range c.servers {
			view, err := s.clusterView()
			if err != nil {
				continue // down
			}
			if !view[owner.nodeID].owns(slot) {
				return fmt.Errorf("%s reports another owner", s.Addr())
			}
		}
		return nil
	})
}

// Reshard moves slots to the primary to, key by key with redis-cli as an operator would, and blocks until
// the end. It moves the slots of the owner of last, from its first slot up to last.
func (c *ClusterDeployment) Reshard(last int, to *Server) {
	c.t.Helper()
	from := c.OwnerOf(last)
	self, err := from.clusterSelf()
	c.must(err)
	n := 0
	for _, r := range self.slots {
		n += max(0, min(r[1], last)-r[0]+1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", "--cluster", "reshard", from.Addr(), "--cluster-yes",
		"--cluster-from", from.nodeID, "--cluster-to", to.nodeID, "--cluster-slots", fmt.Sprint(n))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("redis-cli --cluster reshard: %v, end of its output:\n%s", err, out[max(0, len(out)-2000):])
	}
}

// MigratesAtomically reports whether the servers can move slots as a whole, as Valkey 9 can.
func (c *ClusterDeployment) MigratesAtomically() bool {
	c.t.Helper()
	reply, err := c.servers[0].do(queryTimeout, "COMMAND", "INFO", "cluster|migrateslots").Slice()
	c.must(err)
	return len(reply) > 0 && reply[0] != nil
}

// MigrateAtomically moves a slot as a whole from its owner to the primary to, and blocks until all reachable
// servers agree.
func (c *ClusterDeployment) MigrateAtomically(slot int, to *Server) {
	c.t.Helper()
	from := c.OwnerOf(slot)
	c.must(from.do(queryTimeout, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.nodeID).Err())
	c.waitOwner(slot, to)
}

func (m *Migration) setSlot(on *Server, state, id string) {
	m.c.t.Helper()
	if _, err := on.command("CLUSTER", "SETSLOT", m.slot, state, id); err != nil {
		m.c.t.Fatal(err)
	}
}
