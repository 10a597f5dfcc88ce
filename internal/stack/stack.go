// Package stack runs the whole system on one machine without Docker: each part is an operating-system process,
// and one supervisor starts, watches, scales and stops them. The processes are defined in layout, kept running
// in supervisor, and controlled through control. The tests are those of the command line, in internal/local.
package stack

import (
	"cmp"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/relay"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// redisWait is how long the start waits for each stage of Redis to become healthy. The other processes work
// without Redis, but would fill their logs with errors.
const redisWait = 20 * time.Second

// StartWait bounds the time for which a start waits until everything is ready.
const StartWait = 60 * time.Second

// stack is the running system.
type stack struct {
	cfg     layout.Config
	procs   *supervisor.Supervisor
	fatal   chan error    // receives the first error because of which the stack cannot start
	started atomic.Bool   // the start is over: no exit of a process ends the stack
	scaling chan struct{} // holds one token while Scale runs

	log     *events.Log
	loading sync.Mutex // held while the load generator is started or stopped
	relays  relays
	faults  sync.WaitGroup  // faults that go on
	ending  context.Context // done when the stack stops, which ends the faults
	notes   atomic.Pointer[[]string]
}

// Run starts the stack and keeps it up until ctx is done; then it stops everything, Redis last. It returns an
// error when the stack cannot start or its run folder is in use. It leaves no process behind.
func Run(ctx context.Context, cfg layout.Config) error {
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.Err == nil || cfg.Background {
		cfg.Err = io.Discard
	}
	claim, err := rundir.Take(cfg.RunDir, supervisor.Address(cfg.Port))
	if err != nil {
		return err
	}
	defer claim.Release()
	if cfg.OwnRedis() {
		if cfg.Password, err = layout.EnsurePassword(cfg.File(layout.PasswordFile)); err != nil {
			return err
		}
	}
	s := &stack{
		cfg: cfg, procs: supervisor.New(cfg.RunDir, cfg.Logger, cfg.Err),
		fatal: make(chan error, 1), scaling: make(chan struct{}, 1),
		log: events.NewLog(), relays: relays{byReader: make(map[string]*relay.Relay)},
	}
	defer s.procs.Close()
	defer s.relays.close()
	return s.run(ctx)
}

func (s *stack) run(ctx context.Context) error {
	ln, err := s.cfg.Common.Listen()
	if err != nil {
		return supervisor.PortError(supervisor.Port{Number: s.cfg.Port, Env: "DASHBOARD_PORT"}, "the dashboard", err)
	}
	defer ln.Close()
	stages, err := s.cfg.Stages()
	if err != nil {
		return err
	}
	for _, st := range stages {
		for _, sp := range st.Specs {
			if err := supervisor.CheckPorts(sp); err != nil {
				return err
			}
		}
	}

	if err := s.cfg.Remember(); err != nil {
		return err
	}
	ending, end := context.WithCancel(ctx)
	s.ending = ending
	defer s.faults.Wait()
	defer end()
	web := dashboard.New(dashboard.Config{
		Processes: func(ctx context.Context) []state.Process { return s.State(ctx).Processes },
		Log:       s.log, Controls: true,
	})
	var background sync.WaitGroup
	defer background.Wait()
	webCtx, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	served := make(chan error, 1)
	background.Go(func() { web.Run(webCtx) })
	background.Go(func() {
		srv := httpkit.NewServer(dashboard.LocalOnly(control.Handler(s, web)), s.cfg.Logger)
		served <- httpkit.Serve(webCtx, ln, srv, 0, nil)
	})
	// First the processes that use Redis, then the Sentinels, which would otherwise start a failover, and Redis last.
	defer s.procs.StopAll(state.Sentinel, state.Redis)

	startCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	background.Go(func() {
		select {
		case err := <-s.fatal:
			cancel(err)
		case err := <-served:
			cancel(err)
		case <-startCtx.Done():
		}
	})
	if err := s.start(startCtx, stages); err != nil {
		return err
	}
	if err := s.startPrometheus(); err != nil {
		return err
	}
	background.Go(func() {
		if err := s.announce(startCtx); err != nil {
			cancel(err)
		}
	})
	<-startCtx.Done()
	end() // a frozen process could not stop
	if ctx.Err() != nil {
		s.cfg.Logger.Info("stopping")
		return nil
	}
	return context.Cause(startCtx)
}

// start starts one stage after the other. It waits for each stage of Redis (see redisWait), and returns without
// waiting for the last stage, the rest of the stack. s.fatal receives the error of a process that cannot start.
func (s *stack) start(ctx context.Context, stages []layout.Stage) error {
	for i, st := range stages {
		procs, err := s.launchAll(ctx, st.Specs)
		if err != nil || i == len(stages)-1 {
			return err
		}
		if err := s.awaitStage(ctx, st, procs); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// launchAll starts a process for each spec, until ctx is done.
func (s *stack) launchAll(ctx context.Context, specs []supervisor.Spec) ([]*supervisor.Process, error) {
	report := supervisor.ReportTo(s.fatal)
	cannotStart := func(p *supervisor.Process, e supervisor.End) bool { return !s.started.Load() && report(p, e) }
	var procs []*supervisor.Process
	for _, sp := range specs {
		if ctx.Err() != nil {
			return procs, nil
		}
		if sp.Role == state.Gateway {
			// Once the readers exist, so that the gateway has its nodes from the start.
			if err := s.list(); err != nil {
				return nil, err
			}
		}
		if err := s.relays.put(&s.cfg, &sp); err != nil {
			return nil, err
		}
		p, err := s.procs.Launch(sp, cannotStart)
		if err != nil {
			return nil, err
		}
		procs = append(procs, p)
	}
	return procs, nil
}

// startPrometheus starts a Prometheus if there is one. That there is none, or that its port is in use, becomes a note:
// the stack works without it.
func (s *stack) startPrometheus() error {
	sp, ok, why, err := s.cfg.Prometheus()
	if err != nil {
		return err
	}
	if !ok {
		s.notes.Store(&[]string{"no Prometheus was started: " + why})
		return nil
	}
	if err := s.cfg.ListTargets(s.procs.Processes()); err != nil {
		return err
	}
	if _, err := s.procs.Launch(sp, nil); err != nil {
		s.notes.Store(&[]string{"no Prometheus was started: " + err.Error()})
	}
	return nil
}

// awaitStage waits until a stage is formed and its processes are healthy, for redisWait at most. A process that
// is not healthy by then is no error: the state shows it.
func (s *stack) awaitStage(ctx context.Context, st layout.Stage, procs []*supervisor.Process) error {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	if st.Form != nil {
		if err := st.Form(ctx); err != nil {
			return err
		}
	}
	poll.Until(ctx, func() bool {
		return !slices.ContainsFunc(procs, func(p *supervisor.Process) bool {
			return p.State(ctx).State != state.Ready
		})
	})
	return nil
}

// order is the order of the roles in the state. Readers that a scale added follow the others, reader-direct is the last
// of them.
var order = []string{state.Redis, state.Sentinel, state.Writer, state.Reader, state.Auditor, state.Gateway, state.Load, state.Prometheus}

// State checks every process at the same time, within health.Timeout.
func (s *stack) State(ctx context.Context) state.Stack {
	procs := s.procs.Processes()
	slices.SortStableFunc(procs, func(a, b *supervisor.Process) int {
		place := func(p *supervisor.Process) int {
			at := 2 * slices.Index(order, p.Role)
			if p.Ports[0].Env == "DIRECT_PORT" {
				at++
			}
			return at
		}
		return cmp.Compare(place(a), place(b))
	})
	st := state.Stack{PID: os.Getpid(), RunDir: s.cfg.RunDir, Redis: s.cfg.Server(), Processes: make([]state.Process, len(procs))}
	var wg sync.WaitGroup
	for i, p := range procs {
		wg.Go(func() { st.Processes[i] = p.State(ctx) })
	}
	if !s.cfg.OwnRedis() {
		external := state.Process{
			Name: "redis", Role: state.Redis, Address: strings.Join(s.cfg.RedisAddr, ","), External: true,
		}
		wg.Go(func() { external.SetHealth(s.cfg.ExternalRedis(ctx)) })
		wg.Wait()
		st.Processes = append([]state.Process{external}, st.Processes...)
	}
	wg.Wait()
	if notes := s.notes.Load(); notes != nil {
		st.Notes = *notes
	}
	// The gateway is launched last of what a start waits for.
	st.Complete = slices.ContainsFunc(st.Processes, func(p state.Process) bool { return p.Role == state.Gateway })
	return st
}
