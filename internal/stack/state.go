package stack

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"heavy-read-api/internal/dashboard"
)

// State is what GET /api/state answers.
type State struct {
	PID       int                 `json:"pid"` // of the supervisor
	RunDir    string              `json:"run_dir"`
	Redis     Redis               `json:"redis"`
	Complete  bool                `json:"complete"` // everything was launched
	Processes []dashboard.Process `json:"processes"`
}

// Redis is where the stack's Redis is.
type Redis struct {
	Layout     string   `json:"layout,omitempty"` // single, sentinel or cluster; "" when it is not the stack's own
	Addrs      []string `json:"addrs"`
	MasterName string   `json:"master_name,omitempty"` // at the Sentinels, which Addrs are then
}

// ready reports whether everything is up and ready.
func (st State) ready() bool {
	for _, p := range st.Processes {
		if !p.Up() {
			return false
		}
	}
	return st.Complete
}

// settled reports whether everything is ready, and the gateway uses every reader.
func (st State) settled() bool { return st.Complete && len(st.missing()) == 0 }

// missing tells which processes keep the stack from being settled, and why.
func (st State) missing() []string {
	var all []string
	for _, p := range st.Processes {
		if !settled(p) {
			all = append(all, fmt.Sprintf("%s (%s)", p.Name, stateText(p)))
		}
	}
	return all
}

// missingText is missing in a sentence.
func (st State) missingText() string {
	if !st.Complete {
		return strings.Join(append(st.missing(), "not every process was started yet"), ", ")
	}
	return strings.Join(st.missing(), ", ")
}

// settled reports whether a start is done with p. A reader that has lost Redis serves from memory; a
// gateway that is degraded does not use all readers, and a Redis or Sentinel that is has not found the
// others yet.
func settled(p dashboard.Process) bool {
	switch p.Role {
	case roleGateway, roleRedis, roleSentinel:
		return p.State == dashboard.Ready
	}
	return p.Up()
}

// stateText is the state of p, and why.
func stateText(p dashboard.Process) string {
	if p.Detail == "" {
		return p.State
	}
	return p.State + ": " + p.Detail
}

// state looks at every process at the same time; it takes checkTimeout at most.
func (s *stack) state(ctx context.Context) State {
	s.mu.Lock()
	procs := slices.Clone(s.procs)
	s.mu.Unlock()
	st := State{PID: os.Getpid(), RunDir: s.cfg.RunDir, Redis: s.cfg.redis(), Processes: make([]dashboard.Process, len(procs))}
	var wg sync.WaitGroup
	for i, p := range procs {
		wg.Go(func() { st.Processes[i] = p.state(ctx) })
	}
	if !s.cfg.ownRedis() {
		external := dashboard.Process{
			Name: "redis", Role: roleRedis, Address: strings.Join(s.cfg.RedisAddr, ","), External: true,
		}
		wg.Go(func() { setHealth(&external, s.cfg.externalRedis(ctx)) })
		wg.Wait()
		st.Processes = append([]dashboard.Process{external}, st.Processes...)
	}
	wg.Wait()
	// Everything has been launched once the last of them, the gateway, is in the list.
	st.Complete = slices.ContainsFunc(st.Processes, func(p dashboard.Process) bool { return p.Role == roleGateway })
	return st
}

func (p *process) state(ctx context.Context) dashboard.Process {
	p.mu.Lock()
	st := dashboard.Process{
		Name: p.name, Role: p.role, Address: address(p.ports[0].number), Metrics: p.metrics,
		PID: p.pid, Restarts: p.restarts,
	}
	lastExit := p.lastExit
	p.mu.Unlock()
	switch {
	case p.isStopping():
		st.State = dashboard.Stopping
	case st.PID == 0:
		st.State, st.Detail = dashboard.Restarting, lastExit
	default:
		setHealth(&st, p.check(ctx))
	}
	return st
}

func setHealth(p *dashboard.Process, h health) {
	p.Note, p.Detail = h.note, h.detail
	switch {
	case !h.ready:
		p.State = dashboard.NotReady
	case h.detail != "":
		p.State = dashboard.Degraded
	default:
		p.State = dashboard.Ready
	}
}
