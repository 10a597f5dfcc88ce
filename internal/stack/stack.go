package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/httpkit"
)

// redisWait is how long the others are held back at the start until each stage of Redis is well: they
// cope without it, but would fill their logs with it.
const redisWait = 20 * time.Second

// firstStart is how young a process is while its exit still means that it cannot start at all.
const firstStart = 5 * time.Second

// stack is the running system.
type stack struct {
	cfg     Config
	log     *slog.Logger
	starter *starter
	fatal   chan error    // takes the first reason for which the stack cannot start
	scaling chan struct{} // holds one token while Scale runs

	mu      sync.Mutex // guards what follows
	procs   []*process // in the order of their start
	closing bool       // no process is started any more
}

// Run starts the stack and keeps it up until ctx is done; then it stops everything, Redis last. It
// returns an error when the stack cannot start or its run folder is in use, and leaves no process
// behind in any case.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	if cfg.Err == nil || cfg.Background {
		cfg.Err = io.Discard
	}
	claim, err := claimRunDir(cfg)
	if err != nil {
		return err
	}
	defer claim.release()
	if cfg.ownRedis() {
		if cfg.password, err = ensurePassword(cfg.file(passwordFile)); err != nil {
			return err
		}
	}
	s := &stack{
		cfg: cfg, log: cfg.logger(), starter: newStarter(),
		fatal: make(chan error, 1), scaling: make(chan struct{}, 1),
	}
	defer s.starter.close()
	return s.run(ctx)
}

func (s *stack) run(ctx context.Context) error {
	ln, err := s.cfg.Common.Listen()
	if err != nil {
		return portError(port{s.cfg.Port, "DASHBOARD_PORT"}, "the dashboard", err)
	}
	defer ln.Close()
	stages, err := s.layout()
	if err != nil {
		return err
	}
	for _, st := range stages {
		for _, sp := range st.specs {
			if err := checkPorts(sp); err != nil {
				return err
			}
		}
	}

	if s.cfg.ownRedis() {
		if err := replaceFile(s.cfg.file(layoutFile), s.cfg.Redis+"\n"); err != nil {
			return fmt.Errorf("remember the layout of Redis: %w", err)
		}
	}
	web := dashboard.New(dashboard.Config{
		Processes: func(ctx context.Context) []dashboard.Process { return s.state(ctx).Processes },
		Logger:    s.log,
	})
	var background sync.WaitGroup
	defer background.Wait()
	webCtx, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	served := make(chan error, 1)
	background.Go(func() { web.Run(webCtx) })
	background.Go(func() {
		srv := httpkit.NewServer(dashboard.LocalOnly(s.routes(web)), s.log)
		served <- httpkit.Serve(webCtx, ln, srv, 0, nil)
	})
	defer s.stopAll()

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
	background.Go(func() {
		if err := s.announce(startCtx); err != nil {
			cancel(err)
		}
	})
	<-startCtx.Done()
	if ctx.Err() != nil {
		s.log.Info("stopping")
		return nil
	}
	return context.Cause(startCtx)
}

// stage is a part of the stack whose processes are started without waiting for each other.
type stage struct {
	specs []spec
	// form, when set, is called once the processes run, and makes one system of them. It blocks until
	// that is done or ctx is.
	form func(ctx context.Context) error
}

// layout returns what to start: Redis, if it is ours, then the rest as the last stage.
func (s *stack) layout() (stages []stage, err error) {
	if s.cfg.ownRedis() {
		var what string
		if stages, what, err = s.cfg.ownRedisStages(); err != nil {
			return nil, err
		}
		s.log.Info("Redis is " + what)
	} else {
		s.log.Info("Redis is the one of REDIS_ADDR, none is started", "addr", strings.Join(s.cfg.RedisAddr, ","))
	}
	var rest []spec
	var errs []error
	add := func(sp spec, err error) { rest, errs = append(rest, sp), append(errs, err) }
	add(s.cfg.writer())
	for n := range s.cfg.Readers {
		add(s.cfg.reader(n + 1))
	}
	add(s.cfg.direct())
	add(s.cfg.gateway())
	return append(stages, stage{specs: rest}), errors.Join(errs...)
}

// start starts one stage after the other. It waits until a stage of Redis is well (see redisWait), and
// returns without waiting for the last one, the rest of the stack. A process that turns out to be
// unable to start is reported through s.fatal.
func (s *stack) start(ctx context.Context, stages []stage) error {
	for i, st := range stages {
		procs, err := s.launchAll(ctx, st.specs)
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
func (s *stack) launchAll(ctx context.Context, specs []spec) ([]*process, error) {
	cannotStart := reportTo(s.fatal)
	var procs []*process
	for _, sp := range specs {
		if ctx.Err() != nil {
			return procs, nil // the caller knows why
		}
		if sp.role == roleGateway {
			// The readers exist by now, so the gateway finds its nodes at its first look.
			if err := s.list(); err != nil {
				return nil, err
			}
		}
		p, err := s.launch(sp, cannotStart)
		if err != nil {
			return nil, err
		}
		procs = append(procs, p)
	}
	return procs, nil
}

// awaitStage waits until the processes of a stage are formed and well, for redisWait at most. That not
// all become well is no error: the state shows it.
func (s *stack) awaitStage(ctx context.Context, st stage, procs []*process) error {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	if st.form != nil {
		if err := st.form(ctx); err != nil {
			return err
		}
	}
	await(ctx, func() bool {
		return !slices.ContainsFunc(procs, func(p *process) bool {
			h := p.check(ctx)
			return !h.ready || h.detail != ""
		})
	})
	return nil
}

// end is how a process ended.
type end struct {
	exit      error
	lived     time.Duration
	lastError string // what copyLines returns
	attempt   int    // number of the start, from 1
}

// verdict decides about a process that ended, as process.hopeless describes.
type verdict func(p *process, e end) bool

// reportTo returns a verdict that sends the reason why a process cannot start to failed, unless
// failed is full: one reason is enough.
func reportTo(failed chan<- error) verdict {
	return func(p *process, e end) bool {
		err := cannotStart(p, e)
		if err == nil {
			return false
		}
		select {
		case failed <- err:
		default:
		}
		return true
	}
}

// maxAttempts is how often a process is started that ends young each time: what a restart does not mend,
// more of them do not mend either.
const maxAttempts = 3

// cannotStart returns why a process that ended cannot start at all, nil when it may: its port was taken
// after the check, a restart would fail in the same way, or it has ended young maxAttempts times.
func cannotStart(p *process, e end) error {
	words, cure := e.lastError, ""
	if p.cure != nil {
		words, cure = p.cure(words)
	}
	if cure == "" {
		if e.lived > firstStart {
			return nil
		}
		err := checkPorts(p.spec)
		var inUse *portInUseError
		if errors.As(err, &inUse) {
			return err
		} else if !permanent(e.exit) && e.attempt < maxAttempts {
			return nil
		}
	}
	switch {
	case words == "":
		words = exitText(e.exit) + ", see " + p.output.path
	case !permanent(e.exit):
		words += " (" + exitText(e.exit) + ", see " + p.output.path + ")"
	}
	return errors.New(p.name + " cannot start: " + words + cure)
}

// launch starts and supervises a process. It returns once the process exists or its first start
// failed.
func (s *stack) launch(sp spec, hopeless verdict) (*process, error) {
	output, err := openLog(s.cfg.file(sp.name+".log"), maxLogBytes)
	if err != nil {
		return nil, err
	}
	p := &process{
		spec: sp, starter: s.starter, grace: killAfter, log: s.log, output: output, terminal: s.cfg.Err, hopeless: hopeless,
		stopping: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}),
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		output.Close()
		return nil, errors.New("the stack is stopping")
	}
	s.procs = append(s.procs, p)
	s.mu.Unlock()
	go p.run()
	<-p.started
	return p, nil
}

// stopAll stops every process: first all that use Redis, then the Sentinels, which would otherwise
// start a failover, and Redis last.
func (s *stack) stopAll() {
	s.mu.Lock()
	s.closing = true
	procs := slices.Clone(s.procs)
	s.mu.Unlock()
	stopThose := func(in func(role string) bool) {
		for _, p := range procs {
			if in(p.role) {
				p.stop()
			}
		}
		for _, p := range procs {
			if in(p.role) {
				<-p.done
			}
		}
	}
	stopThose(func(role string) bool { return role != roleRedis && role != roleSentinel })
	stopThose(func(role string) bool { return role == roleSentinel })
	stopThose(func(role string) bool { return role == roleRedis })
}
