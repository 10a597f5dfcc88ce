// Package supervisor runs the processes of a stack: it starts them, keeps their output in log files, starts those
// again that die, and stops them.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/stack/state"
)

// Bounds of the restarts and of the stop of a child.
const (
	backoffMin   = 200 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffReset = 10 * time.Second // after a life of this length the backoff starts at its minimum again
	killAfter    = 12 * time.Second // above the 2.5 s drain of a reader and the 6 s for its requests in flight
)

// nextBackoff returns the wait before the next start of a child. lived is how long the child has run, and
// previous the wait before that start (0 before the first).
func nextBackoff(previous, lived time.Duration) time.Duration {
	if previous == 0 || lived >= backoffReset {
		return backoffMin
	}
	return min(2*previous, backoffMax)
}

// Spec describes a process: how it is started, and how its health is checked.
type Spec struct {
	Name    string   // unique, such as reader-1
	Role    string   // role, a constant of package state
	Ports   []Port   // ports that it listens on; the first one is in its address
	Path    string   // program
	Argv    []string // its name in ps and its arguments
	Env     []string
	Metrics string // address of its metrics, "" when it has none
	Check   func(ctx context.Context) state.Health
	// Prepare, when set, is called before each start and returns further arguments. It may block until ctx is done,
	// which a stop of the process causes. With an error the start fails.
	Prepare func(ctx context.Context) ([]string, error)
	Notable func(line string) bool // whether a line of its output is for the terminal
	// Cure, when set, is called with the last line of a process that ended. It returns the message in that line, and
	// the remedy if a restart cannot help, else "".
	Cure func(line string) (message, remedy string)
}

// Process is one supervised child. Its goroutine, run, ends after stop once the child is gone.
type Process struct {
	Spec
	starter  *starter
	grace    time.Duration // time from SIGTERM to SIGKILL
	log      *slog.Logger
	output   *logFile
	terminal io.Writer // receives notable lines; must not block
	hopeless Verdict   // nil restarts the child after every exit

	stopOnce sync.Once
	stopping chan struct{} // closed by stop
	started  chan struct{} // closed by run once the child runs, or its first start failed
	done     chan struct{} // closed by run at its end, when no child runs

	mu       sync.Mutex // guards all fields below
	pid      int        // 0 while no child runs
	restarts int
	lastExit string
	worked   bool // a check has found it ready
}

func newProcess(spec Spec, starter *starter, log *slog.Logger, output *logFile, terminal io.Writer) *Process {
	return &Process{
		Spec: spec, starter: starter, grace: killAfter, log: log, output: output, terminal: terminal,
		stopping: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}),
	}
}

// stop starts the stop of the child and returns at once; done is closed once the child has ended.
func (p *Process) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

// Stopping reports whether the process was told to stop.
func (p *Process) Stopping() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

// run keeps the child alive until stop.
func (p *Process) run() {
	defer close(p.done)
	defer p.output.Close()
	begun := sync.OnceFunc(func() { close(p.started) })
	defer begun()
	var delay time.Duration
	for attempt := 1; ; attempt++ {
		argv, err := p.arguments()
		if p.Stopping() {
			return
		}
		start := time.Now()
		var lastError string
		exit := err
		if err != nil {
			lastError = err.Error()
			p.setPID(0, err)
		} else {
			lastError, exit = p.once(argv, begun)
		}
		begun()
		lived := time.Since(start)
		if p.Stopping() {
			p.log.Debug("process stopped", "process", p.Name, "exit", ExitText(exit))
			return
		}
		if p.hopeless != nil && !p.hasWorked() && p.hopeless(p, End{exit, lived, lastError, attempt}) {
			return
		}
		delay = nextBackoff(delay, lived)
		message := "process died; restarting it"
		if exit == nil {
			message = "process has stopped; restarting it" // as after a SIGTERM
		}
		p.log.Warn(message, "process", p.Name, "exit", ExitText(exit),
			"lived", lived.Round(time.Millisecond), "in", delay)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-p.stopping:
			timer.Stop()
			return
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// arguments returns the arguments of the next start. It blocks until stop at most.
func (p *Process) arguments() ([]string, error) {
	if p.Prepare == nil {
		return p.Argv, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-p.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	more, err := p.Prepare(ctx)
	return append(slices.Clone(p.Argv), more...), err
}

// once starts the child and waits for its end. After stop it ends the child.
func (p *Process) once(argv []string, begun func()) (lastError string, exit error) {
	cmd := &exec.Cmd{Path: p.Path, Args: argv, Env: p.Env}
	// Not cmd.StdoutPipe but a separate pipe: its reading end survives Wait, so that the last lines of a child that
	// crashed are not lost.
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = p.starter.start(cmd)
	w.Close()
	if err != nil {
		p.setPID(0, err)
		return err.Error(), err
	}
	p.setPID(cmd.Process.Pid, nil)
	begun()
	p.log.Debug("process started", "process", p.Name, "pid", cmd.Process.Pid)

	copied := make(chan string, 1)
	go func() { copied <- copyLines(r, p.Name+" | ", p.output, p.terminal, p.Notable) }()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case exit = <-exited:
	case <-p.stopping:
		exit = p.end(cmd.Process.Pid, exited)
	}
	p.setPID(0, exit)
	// Copying normally ends at once. A grandchild that survives may hold the pipe open, so r is closed after a
	// second, which ends the copying.
	timer := time.AfterFunc(time.Second, func() { r.Close() })
	defer timer.Stop()
	return <-copied, exit
}

// end stops the running child: by SIGTERM, after grace by SIGKILL.
func (p *Process) end(pid int, exited <-chan error) error {
	_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone already
	_ = syscall.Kill(pid, syscall.SIGCONT) // a frozen process handles no signal
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case err := <-exited:
		return err
	case <-timer.C:
	}
	p.log.Warn("process has not stopped; killing it", "process", p.Name, "pid", pid, "after", p.grace)
	_ = syscall.Kill(-pid, syscall.SIGKILL) // the whole group, of which it is the leader
	return <-exited
}

// Signal sends a signal to the child. It returns an error while no child runs.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 {
		return fmt.Errorf("%s does not run at the moment", p.Name)
	}
	if err := syscall.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("send a signal to %s: %w", p.Name, err)
	}
	return nil
}

// State checks the process and returns its state.
func (p *Process) State(ctx context.Context) state.Process {
	p.mu.Lock()
	st := state.Process{
		Name: p.Name, Role: p.Role, Address: Address(p.Ports[0].Number), Metrics: p.Metrics,
		PID: p.pid, Restarts: p.restarts,
	}
	lastExit := p.lastExit
	p.mu.Unlock()
	switch {
	case p.Stopping():
		st.State = state.Stopping
	case st.PID == 0:
		st.State, st.Detail = state.Restarting, lastExit
	default:
		st.SetHealth(p.Check(ctx))
		if st.Up() {
			p.mu.Lock()
			p.worked = true
			p.mu.Unlock()
		}
	}
	return st
}

// hasWorked reports whether a check has found the process ready. From then on every exit only restarts it.
func (p *Process) hasWorked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.worked
}

func (p *Process) setPID(pid int, exit error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	if pid == 0 {
		p.lastExit = ExitText(exit)
	}
}

// ExitText describes the end of a child as os/exec reports it.
func ExitText(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit status 0"
	case errors.As(err, &exit):
		return exit.String()
	default:
		return err.Error()
	}
}

// permanent reports whether a restart would end like this exit: the child refused its
// configuration, or its program cannot be executed.
func permanent(err error) bool {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode() == daemon.ExitConfig
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}
