// Package state describes the running stack: its processes, their roles and their health.
package state

import "time"

// Roles of processes. Each except Sentinel, Prometheus and Grafana is also the first argument that makes the program take this
// role.
const (
	Redis      = "redis"
	Sentinel   = "sentinel"
	Writer     = "writer"
	Reader     = "reader"
	Auditor    = "auditor"
	Gateway    = "gateway"
	Load       = "load-generator" // runs on request
	Prometheus = "prometheus"
	Grafana    = "grafana" // only in Docker
)

// States of a process.
const (
	Ready      = "ready"
	Degraded   = "degraded"   // ready, with a problem that Detail names
	NotReady   = "not ready"  // running; Detail names what is missing
	Restarting = "restarting" // it died, Detail says how, and is about to be started again
	Stopping   = "stopping"
)

// Process is one process of the stack, or one container.
type Process struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Address  string `json:"address"` // host:port on this machine, "" when it has none
	PID      int    `json:"pid,omitempty"`
	Restarts int    `json:"restarts"`
	State    string `json:"state"`
	Note     string `json:"note,omitempty"` // role in Redis or a warning, such as "primary"
	Detail   string `json:"detail,omitempty"`
	External bool   `json:"external,omitempty"` // not started by the stack
	Metrics  string `json:"metrics,omitempty"`  // URL of its metrics, "" when it has none
	// Refresh is the time between two updates of its metrics, 0 if every scrape has the newest values.
	Refresh time.Duration `json:"-"`
}

// Up reports whether the process does its job.
func (p Process) Up() bool { return p.State == Ready || p.State == Degraded }

// Spectator reports whether p only watches the stack or puts load on it: the stack serves as well without it.
func (p Process) Spectator() bool { return p.Role == Load || p.Role == Prometheus || p.Role == Grafana }

// Settled reports whether a start no longer waits for p. A reader that is degraded has lost Redis and serves from
// memory. A degraded gateway does not use all readers yet, and a degraded Redis or Sentinel has not found
// the others yet.
func (p Process) Settled() bool {
	switch p.Role {
	case Gateway, Redis, Sentinel:
		return p.State == Ready
	}
	return p.Up() || p.Spectator()
}

// Well reports whether p is ready and not degraded, or a spectator.
func (p Process) Well() bool { return p.State == Ready || p.Spectator() }

// StateText returns the state of p and the reason for it.
func (p Process) StateText() string {
	if p.Detail == "" {
		return p.State
	}
	return p.State + ": " + p.Detail
}

// Health is the result of one health check.
type Health struct {
	Ready  bool
	Note   string // role in Redis or a warning, such as "primary"
	Detail string // reason for which it is not ready, or problem of a ready process
}

// SetHealth sets the state of p from a health check.
func (p *Process) SetHealth(h Health) {
	p.Note, p.Detail = h.Note, h.Detail
	switch {
	case !h.Ready:
		p.State = NotReady
	case h.Detail != "":
		p.State = Degraded
	default:
		p.State = Ready
	}
}
