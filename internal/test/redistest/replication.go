package redistest

import (
	"fmt"
	"net"
)

// Promote makes a Redis replica a primary (REPLICAOF NO ONE). It stays one after a restart.
func (s *Server) Promote() {
	s.t.Helper()
	s.follow("NO", "ONE")
}

// ReplicaOf makes the server a Redis replica of primary, which discards its own data. It does not wait for
// the synchronization.
func (s *Server) ReplicaOf(primary Addresser) {
	s.t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		s.t.Fatalf("make %s a replica: %v", s.Addr(), err)
	}
	s.follow(host, port)
}

func (s *Server) follow(host, port string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.command("REPLICAOF", host, port); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.command("CONFIG", "REWRITE"); err != nil {
		s.t.Fatal(err)
	}
}

// WaitReplicaOnline waits until the server, a Redis replica, has finished its first synchronization, has a
// working link to its primary, and has its data on its own disk. After a full synchronization Redis rewrites
// the append-only file in the background; a server killed before the end of that starts empty, even if it
// has been promoted and has acknowledged writes since.
func (s *Server) WaitReplicaOnline() {
	s.t.Helper()
	s.waitReplica("synchronize with its primary", func(own string) error {
		for field, want := range map[string]string{
			"role":                      "slave",
			"master_link_status":        "up",
			"aof_rewrite_in_progress":   "0",
			"aof_rewrite_scheduled":     "0",
			"aof_last_bgrewrite_status": "ok",
		} {
			if got := infoField(own, field); got != want {
				return fmt.Errorf("%s is %q, not %q", field, got, want)
			}
		}
		return nil
	})
}

// WaitReplicaInSync waits until the server, a Redis replica, has all writes that primary had at some time
// after the call.
func (s *Server) WaitReplicaInSync(primary *Server) {
	s.t.Helper()
	s.WaitReplicaOnline()
	s.waitReplica("be in sync with "+primary.Addr(), func(own string) error {
		theirs, err := primary.command("INFO", "replication")
		if err != nil {
			return err
		}
		// Offsets are comparable only within one history.
		for _, field := range []string{"master_replid", "master_repl_offset"} {
			if a, b := infoField(own, field), infoField(theirs, field); a != b || a == "" {
				return fmt.Errorf("%s is %s, the primary's %s", field, a, b)
			}
		}
		return nil
	})
}

func (s *Server) waitReplica(what string, check func(own string) error) {
	s.t.Helper()
	s.mu.Lock()
	exited := s.exited
	s.mu.Unlock()
	err := s.poll(what, exited, func() error {
		own, err := s.command("INFO")
		if err != nil {
			return err
		}
		return check(own)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
