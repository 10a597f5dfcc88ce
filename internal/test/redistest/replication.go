package redistest

import (
	"fmt"
	"net"
)

// Promote makes a replica a primary (REPLICAOF NO ONE), for good: a restart
// does not turn it back.
func (s *Server) Promote() {
	s.t.Helper()
	s.follow("NO", "ONE")
}

// ReplicaOf makes the server a replica of primary, which throws its own data
// away. It does not wait for the first sync.
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

// WaitReplicaOnline waits until the server, a replica, has its first sync, a
// live link to its primary, and its data on its own disk. After a full sync
// Redis rewrites the append-only file in the background: killed before that
// ends it starts empty, whatever it has acknowledged since, promoted or not.
func (s *Server) WaitReplicaOnline() {
	s.t.Helper()
	s.waitReplica("reach its primary", func(own string) error {
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

// WaitReplicaInSync waits until the server, a replica, has everything that
// primary has written up to some moment after the call.
func (s *Server) WaitReplicaInSync(primary *Server) {
	s.t.Helper()
	s.WaitReplicaOnline()
	s.waitReplica("be in sync with "+primary.Addr(), func(own string) error {
		theirs, err := primary.command("INFO", "replication")
		if err != nil {
			return err
		}
		// The same offset of another history would prove nothing.
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
