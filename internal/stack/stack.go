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
	"syscall"
	"time"

	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/service"
)

// redisWait is how long the others are held back at the start until Redis answers: they cope
// without it, but would fill their logs with it.
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
	s := &stack{
		cfg: cfg, log: cfg.logger(), starter: newStarter(),
		fatal: make(chan error, 1), scaling: make(chan struct{}, 1),
	}
	defer s.starter.close()
	return s.run(ctx)
}

func (s *stack) run(ctx context.Context) error {
	ln, err := service.Listen(&s.cfg.Common)
	if errors.Is(err, syscall.EADDRINUSE) {
		return &portInUseError{port{s.cfg.Port, "DASHBOARD_PORT"}, "the dashboard"}
	} else if err != nil {
		return err
	}
	defer ln.Close()
	first, rest, err := s.layout()
	if err != nil {
		return err
	}
	for _, sp := range append(slices.Clone(first), rest...) {
		if err := checkPorts(sp); err != nil {
			return err
		}
	}

	web := dashboard.New(dashboard.Config{
		Processes: func(ctx context.Context) []dashboard.Process { return s.state(ctx).Processes },
		Token:     s.cfg.WriterToken,
		Logger:    s.log,
	})
	var background sync.WaitGroup
	defer background.Wait()
	webCtx, stopWeb := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWeb()
	served := make(chan error, 1)
	background.Go(func() { web.Run(webCtx) })
	background.Go(func() {
		srv := service.NewServer(dashboard.LocalOnly(s.routes(web)), s.log)
		served <- service.Serve(webCtx, ln, srv, 0, nil)
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
	if err := s.start(startCtx, first, rest); err != nil {
		return err
	}
	background.Go(func() { s.announce(startCtx) })
	<-startCtx.Done()
	if ctx.Err() != nil {
		s.log.Info("stopping")
		return nil
	}
	return context.Cause(startCtx)
}

// layout returns what to start: first Redis, if it is ours, then the rest.
func (s *stack) layout() (first, rest []spec, err error) {
	if s.cfg.ownRedis() {
		redis, what, err := s.cfg.redis()
		if err != nil {
			return nil, nil, err
		}
		s.log.Info("Redis is " + what)
		first = append(first, redis)
	} else {
		s.log.Info("Redis is the one of REDIS_ADDR, none is started", "addr", strings.Join(s.cfg.RedisAddr, ","))
	}
	var errs []error
	add := func(sp spec, err error) { rest, errs = append(rest, sp), append(errs, err) }
	add(s.cfg.writer())
	for n := range s.cfg.Readers {
		add(s.cfg.reader(n + 1))
	}
	add(s.cfg.direct())
	add(s.cfg.gateway())
	return first, rest, errors.Join(errs...)
}

// start starts everything in order and returns without waiting for readiness (but see redisWait).
// A process that turns out to be unable to start is reported through s.fatal.
func (s *stack) start(ctx context.Context, first, rest []spec) error {
	cannotStart := reportTo(s.fatal)
	for _, sp := range first {
		p, err := s.launch(sp, cannotStart)
		if err != nil {
			return err
		}
		waitCtx, cancel := context.WithTimeout(ctx, redisWait)
		await(waitCtx, func() bool { return p.check(waitCtx).ready })
		cancel()
	}
	for _, sp := range rest {
		if ctx.Err() != nil {
			return nil // the caller knows why
		}
		if sp.role == roleGateway {
			// The readers exist by now, so the gateway finds its nodes at its first look.
			if err := s.list(); err != nil {
				return err
			}
		}
		if _, err := s.launch(sp, cannotStart); err != nil {
			return err
		}
	}
	return nil
}

// verdict decides about a process that ended, as process.hopeless describes.
type verdict func(p *process, exit error, lived time.Duration, lastError string) bool

// reportTo returns a verdict that sends the reason why a process cannot start to failed, unless
// failed is full: one reason is enough.
func reportTo(failed chan<- error) verdict {
	return func(p *process, exit error, lived time.Duration, lastError string) bool {
		err := cannotStart(p, exit, lived, lastError)
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

// cannotStart returns why a process that ended young cannot start at all, nil when it may: its port
// was taken after the check, or a restart would fail in the same way. Anything else, such as a
// panic, is for the restarts.
func cannotStart(p *process, exit error, lived time.Duration, lastError string) error {
	if lived > firstStart {
		return nil
	}
	err := checkPorts(p.spec)
	var inUse *portInUseError
	if errors.As(err, &inUse) {
		return err
	} else if !permanent(exit) {
		return nil
	}
	if lastError == "" {
		lastError = exitText(exit) + ", see " + p.output.path
	}
	return fmt.Errorf("%s cannot start: %s", p.name, lastError)
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

// stopAll stops every process, all at once except Redis, which the others may still need.
func (s *stack) stopAll() {
	s.mu.Lock()
	s.closing = true
	procs := slices.Clone(s.procs)
	s.mu.Unlock()
	for _, redis := range []bool{false, true} {
		for _, p := range procs {
			if (p.role == roleRedis) == redis {
				p.stop()
			}
		}
		for _, p := range procs {
			if (p.role == roleRedis) == redis {
				<-p.done
			}
		}
	}
}
