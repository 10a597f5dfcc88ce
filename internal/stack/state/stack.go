package state

import (
	"fmt"
	"strings"
)

// Stack is the state of all processes.
type Stack struct {
	PID       int         `json:"pid"`     // pid of the supervisor
	RunDir    string      `json:"run_dir"` // folder with the password of the stack's own Redis
	Redis     RedisServer `json:"redis"`
	Complete  bool        `json:"complete"` // every process was launched
	Processes []Process   `json:"processes"`
	Notes     []string    `json:"notes,omitempty"` // what the start left out, and why
}

// RedisServer is the address of the stack's Redis.
type RedisServer struct {
	Layout     string   `json:"layout,omitempty"` // single, sentinel or cluster; "" when it is not the stack's own
	Addrs      []string `json:"addrs"`
	InMemory   bool     `json:"in_memory,omitempty"`   // its posts are lost when it ends
	MasterName string   `json:"master_name,omitempty"` // name of the primary at the Sentinels, which Addrs are then
}

// Ready reports whether every process is up, apart from spectators.
func (s Stack) Ready() bool {
	for _, p := range s.Processes {
		if !p.Up() && !p.Spectator() {
			return false
		}
	}
	return s.Complete
}

// Well reports whether every process is ready and none degraded, apart from spectators.
func (s Stack) Well() bool {
	for _, p := range s.Processes {
		if !p.Well() {
			return false
		}
	}
	return s.Complete
}

// Settled reports whether every process is ready and the gateway uses every reader.
func (s Stack) Settled() bool { return s.Complete && len(s.missing()) == 0 }

// missing returns the processes that keep the stack from being settled, each with the reason.
func (s Stack) missing() []string {
	var all []string
	for _, p := range s.Processes {
		if !p.Settled() {
			all = append(all, fmt.Sprintf("%s (%s)", p.Name, p.StateText()))
		}
	}
	return all
}

// MissingText lists what keeps the stack from being settled.
func (s Stack) MissingText() string {
	missing := s.missing()
	if !s.Complete {
		missing = append(missing, "not every process was started yet")
	}
	return strings.Join(missing, ", ")
}
