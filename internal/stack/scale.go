package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

const (
	scaleReadyWait = 15 * time.Second // longest wait for new readers; after it they are listed even if they are not ready
	gatewayWait    = 3 * time.Second  // longest wait for the gateway to apply the nodes file, which it reads twice a second
)

var errScaling = errors.New("another scale is under way: try again when it is done")

// Scale brings the number of readers in rotation to n, 1 to layout.MaxReaders: new ones get traffic once
// they are ready; the ones with the highest numbers stop after the gateway has dropped them, so that
// no read fails. It blocks until the gateway has followed, for 20 s or so at most; then the error says
// which reader is missing and why. A second call at the same time is refused.
func (s *stack) Scale(ctx context.Context, n int) error {
	select {
	case s.scaling <- struct{}{}:
		defer func() { <-s.scaling }()
	default:
		return errScaling
	}
	if !s.State(ctx).Complete {
		return errors.New("the stack is still starting: try again when it is up")
	}
	now := len(s.rotation())
	s.cfg.Logger.Info("scaling the readers", "from", now, "to", n)
	if n == now {
		return nil
	}
	begun := time.Now()
	id := s.log.Begin(events.Scaled, fmt.Sprintf("readers in rotation: %d → %d", now, n))
	var err error
	if n > now {
		err = s.scaleUp(ctx, now, n)
	} else {
		err = s.scaleDown(ctx, n)
	}
	s.log.Finish(id, fmt.Sprintf("done after %.1f s", time.Since(begun).Seconds()), err)
	return errors.Join(err, s.cfg.ListTargets(s.procs.Processes()))
}

func (s *stack) scaleUp(ctx context.Context, from, to int) error {
	var specs []supervisor.Spec
	for i := from + 1; i <= to; i++ {
		sp, err := s.cfg.Reader(i)
		if err == nil {
			err = supervisor.CheckPorts(sp)
		}
		if err == nil {
			err = s.relays.put(&s.cfg, &sp)
		}
		if err != nil {
			return err // nothing was started yet
		}
		specs = append(specs, sp)
	}
	failed := make(chan error, 1)
	report := supervisor.ReportTo(failed)
	scaling, over := context.WithCancel(ctx)
	defer over()
	var added []*supervisor.Process
	for _, sp := range specs {
		p, err := s.procs.Launch(sp, func(p *supervisor.Process, e supervisor.End) bool {
			return scaling.Err() == nil && report(p, e) // nothing receives from failed once scaling has ended
		})
		if err != nil {
			s.procs.Remove(added)
			return err
		}
		added = append(added, p)
	}
	wait, cancel := context.WithTimeout(ctx, scaleReadyWait)
	defer cancel()
	var ready []*supervisor.Process
	for _, p := range added {
		if poll.Until(wait, func() bool { return len(failed) > 0 || p.Stopping() || p.State(wait).Up() }) {
			ready = append(ready, p)
		}
	}
	select {
	case err := <-failed:
		s.procs.Remove(added)
		return err
	default:
	}
	// The others are listed too: the gateway checks them and uses them once they are ready.
	if err := s.list(); err != nil {
		return err
	}
	wait, cancel = context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	poll.Until(wait, func() bool { return len(s.outside(wait, ready)) == 0 })
	if missing := s.outside(ctx, added); len(missing) > 0 {
		return fmt.Errorf("not every new reader is in rotation: %s; they join once they are ready", strings.Join(missing, ", "))
	}
	return nil
}

// outside returns those of the readers that the gateway does not use, each with the reason.
func (s *stack) outside(ctx context.Context, readers []*supervisor.Process) []string {
	nodes, err := s.cfg.GatewayNodes(ctx)
	var all []string
	for _, p := range readers {
		if nodes[p.Ports[0].Number] {
			continue
		}
		why := "the gateway does not use it yet"
		if st := p.State(ctx); !st.Up() {
			why = st.StateText()
		} else if err != nil {
			why = "the gateway does not answer: " + health.ShortError(err)
		}
		all = append(all, fmt.Sprintf("%s (%s)", p.Name, why))
	}
	return all
}

func (s *stack) scaleDown(ctx context.Context, n int) error {
	rotation := s.rotation()
	leaving := rotation[min(n, len(rotation)):]
	if err := s.list(leaving...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, gatewayWait)
	defer cancel()
	if !poll.Until(wait, func() bool { return !s.gatewayHasAny(wait, leaving) }) {
		s.cfg.Logger.Warn("the gateway still lists a reader that is about to stop; some reads may be retried", "waited", gatewayWait)
	}
	s.procs.Remove(leaving)
	return nil
}

// rotation returns the readers that are or will be behind the gateway, reader-1 first.
func (s *stack) rotation() []*supervisor.Process {
	return slices.DeleteFunc(s.procs.Processes(), func(p *supervisor.Process) bool {
		return p.Role != state.Reader || p.Ports[0].Env != "READER_PORT"
	})
}

// list writes the nodes file: every reader in rotation that was started, without those that leave.
func (s *stack) list(leaving ...*supervisor.Process) error {
	var nodes []string
	for _, p := range s.rotation() {
		if !slices.Contains(leaving, p) {
			nodes = append(nodes, supervisor.Address(p.Ports[0].Number)+"\n")
		}
	}
	if err := rundir.WriteFile(s.cfg.File(layout.NodesFile), strings.Join(nodes, "")); err != nil {
		return fmt.Errorf("write the gateway's nodes: %w", err)
	}
	return nil
}

// gatewayHasAny reports whether the gateway lists one of the readers, or does not answer.
func (s *stack) gatewayHasAny(ctx context.Context, readers []*supervisor.Process) bool {
	nodes, err := s.cfg.GatewayNodes(ctx)
	return err != nil || slices.ContainsFunc(readers, func(p *supervisor.Process) bool {
		_, listed := nodes[p.Ports[0].Number]
		return listed
	})
}
