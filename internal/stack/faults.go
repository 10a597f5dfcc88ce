package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/relay"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// Fault injects a fault into a process: kill, freeze or cut. A freeze and a cut end after cfg.FaultTime. It returns once
// the fault is there; the log of events has its outcome later.
func (s *stack) Fault(ctx context.Context, kind, name string) error {
	procs := s.procs.Processes()
	i := slices.IndexFunc(procs, func(p *supervisor.Process) bool { return p.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no process %q", name)
	}
	p := procs[i]
	switch kind {
	case "kill":
		if p.Role == state.Redis && s.cfg.InMemory() {
			return errors.New("this is the embedded Redis, which keeps the posts in memory only: a kill would lose them (install redis-server to try it)")
		}
		return s.inject(ctx, p, events.Killed, 0, p.Name+" was killed (SIGKILL)",
			func() error { return p.Signal(syscall.SIGKILL) }, nil)
	case "freeze":
		return s.inject(ctx, p, events.Frozen, s.cfg.FaultTime, fmt.Sprintf("%s was frozen for %.3g s (SIGSTOP)", p.Name, s.cfg.FaultTime.Seconds()),
			func() error { return p.Signal(syscall.SIGSTOP) },
			func() { _ = p.Signal(syscall.SIGCONT) }) // it may have been killed meanwhile
	case "cut":
		r := s.relays.of(p.Name)
		if r == nil {
			return fmt.Errorf("the link of %s cannot be cut: only readers in rotation have a relay, and only in front of a single Redis of the stack's own", p.Name)
		}
		return s.inject(ctx, p, events.Cut, s.cfg.FaultTime, fmt.Sprintf("%s was cut off from Redis for %.3g s", p.Name, s.cfg.FaultTime.Seconds()),
			func() error { r.Cut(); return nil }, r.Mend)
	}
	return fmt.Errorf("there is no fault %q: use kill, freeze or cut", kind)
}

// inject begins a fault, and ends it after a time.
func (s *stack) inject(ctx context.Context, p *supervisor.Process, kind string, lasts time.Duration, text string, begin func() error, end func()) error {
	if s.ending.Err() != nil {
		return errors.New("the stack is stopping")
	}
	id, err := s.log.Fault(kind, p.State(ctx), lasts, text)
	if err != nil {
		return err
	}
	if err := begin(); err != nil {
		s.log.Cancel(id)
		return err
	}
	s.cfg.Logger.Info("injected a fault", "fault", text)
	if end == nil {
		return nil
	}
	s.faults.Go(func() {
		defer end()
		timer := time.NewTimer(lasts)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ending.Done():
		}
	})
	return nil
}

// Load starts the load generator, or stops it if reads is 0. Rates are per second.
func (s *stack) Load(_ context.Context, reads, writes int) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	running := slices.DeleteFunc(s.procs.Processes(), func(p *supervisor.Process) bool { return p.Role != state.Load })
	switch {
	case reads == 0 && len(running) == 0:
		return errors.New("there is no load to stop")
	case reads == 0:
		s.procs.Remove(running)
		s.log.Note(events.LoadStopped, "", "load stopped")
		return s.cfg.ListTargets(s.procs.Processes())
	case len(running) > 0:
		return errors.New("the load runs already")
	}
	sp, err := s.cfg.LoadGenerator(reads, writes)
	if err == nil {
		err = supervisor.CheckPorts(sp)
	}
	if err == nil {
		_, err = s.procs.Launch(sp, nil)
	}
	if err != nil {
		return err
	}
	s.log.Note(events.LoadStarted, "", fmt.Sprintf("load started: %d reads/s, %d writes/s", reads, writes))
	return s.cfg.ListTargets(s.procs.Processes())
}

// relays are the relays between readers and Redis, by reader.
type relays struct {
	mu       sync.Mutex // guards byReader
	byReader map[string]*relay.Relay
}

// of returns the relay of a reader, nil if it has none.
func (r *relays) of(reader string) *relay.Relay {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byReader[reader]
}

// put adds a relay between a reader and Redis to the spec of the reader, if Redis is a single one of the stack's own: the
// addresses of several come from Sentinels or from the cluster itself, which name the servers.
func (r *relays) put(cfg *layout.Config, sp *supervisor.Spec) error {
	if sp.Role != state.Reader || sp.Ports[0].Env != "READER_PORT" || !cfg.OwnRedis() || cfg.Redis != layout.Single {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.byReader[sp.Name] // of a reader that was removed
	if known == nil {
		var err error
		if known, err = relay.Listen(supervisor.Host, strings.Join(cfg.Server().Addrs, ",")); err != nil {
			return err
		}
		r.byReader[sp.Name] = known
	}
	sp.Env = append(sp.Env, "REDIS_ADDR="+known.Addr())
	return nil
}

// close is called once no reader runs.
func (r *relays) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, relay := range r.byReader {
		relay.Close()
	}
}
