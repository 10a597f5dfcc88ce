package stack

import (
	"context"
	"errors"
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
)

// How a child that dies comes back, and how long one that is told to stop may take.
const (
	backoffMin   = 200 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffReset = 10 * time.Second // a child that lived this long starts again without delay built up
	killAfter    = 12 * time.Second // readers drain 2.5 s and let requests finish for 6 s more
)

// nextBackoff returns the wait before the next start of a child that lived for lived, after a wait
// of previous before its last start (0 for the first).
func nextBackoff(previous, lived time.Duration) time.Duration {
	if previous == 0 || lived >= backoffReset {
		return backoffMin
	}
	return min(2*previous, backoffMax)
}

// spec is what a process is: how it is started, and how one tells that it is ready.
type spec struct {
	name    string   // unique, such as reader-1
	role    string   // redis, sentinel, writer, reader or gateway
	ports   []port   // what it listens on; the first is its address
	path    string   // program
	argv    []string // what it is called and its arguments
	env     []string
	metrics string // address of its metrics, "" when it has none
	check   func(ctx context.Context) health
	// prepare, when set, is called before each start and returns further arguments. It may block until
	// ctx is done, which the stop of the process brings about. Its error is that of the start.
	prepare func(ctx context.Context) ([]string, error)
	notable func(line string) bool // which of its lines are for the terminal
	// cure, when set, takes the last line of the process, and returns what it says, and what to do about
	// it, "" unless no restart can help.
	cure func(line string) (words, cure string)
}

// process is one supervised child. Its goroutine, run, ends after stop once the child is gone.
type process struct {
	spec
	starter  *starter
	grace    time.Duration // from SIGTERM to SIGKILL
	log      *slog.Logger
	output   *logFile
	terminal io.Writer // for notable lines; must not block
	// hopeless, when set, is called after each of the child's first exits, maxAttempts at most. When it
	// returns true the child is not started again.
	hopeless verdict

	stopOnce sync.Once
	stopping chan struct{} // closed by stop
	started  chan struct{} // closed by run once the child runs, or its first start failed
	done     chan struct{} // closed by run when there is no child any more and will be none

	mu       sync.Mutex // guards what follows
	pid      int        // 0 while no child runs
	restarts int
	lastExit string
}

// stop asks the child to stop and returns at once; done tells when it is gone.
func (p *process) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

func (p *process) isStopping() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

// run keeps the child alive until stop.
func (p *process) run() {
	defer close(p.done)
	defer p.output.Close()
	begun := sync.OnceFunc(func() { close(p.started) })
	defer begun()
	var delay time.Duration
	for attempt := 1; ; attempt++ {
		argv, err := p.arguments()
		if p.isStopping() {
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
		if p.isStopping() {
			p.log.Debug("process stopped", "process", p.name, "exit", exitText(exit))
			return
		}
		if attempt <= maxAttempts && p.hopeless != nil && p.hopeless(p, end{exit, lived, lastError, attempt}) {
			return
		}
		delay = nextBackoff(delay, lived)
		p.log.Warn("process died, starting it again", "process", p.name, "exit", exitText(exit),
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

// arguments returns those of the next start. It blocks until stop at most.
func (p *process) arguments() ([]string, error) {
	if p.prepare == nil {
		return p.argv, nil
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
	more, err := p.prepare(ctx)
	return append(slices.Clone(p.argv), more...), err
}

// once starts the child and waits for its end, which it brings about after stop.
func (p *process) once(argv []string, begun func()) (lastError string, exit error) {
	cmd := &exec.Cmd{Path: p.path, Args: argv, Env: p.env}
	// A pipe of our own, not cmd.StdoutPipe: the reading end outlives Wait, so that the last words
	// of a child that crashed are not lost.
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
	p.log.Debug("process started", "process", p.name, "pid", cmd.Process.Pid)

	copied := make(chan string, 1)
	go func() { copied <- copyLines(r, p.name+" | ", p.output, p.terminal, p.notable) }()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case exit = <-exited:
	case <-p.stopping:
		exit = p.end(cmd.Process.Pid, exited)
	}
	p.setPID(0, exit)
	// Normally immediate; bounded because a stray grandchild may hold the pipe. Closing r then
	// ends the copying.
	timer := time.AfterFunc(time.Second, func() { r.Close() })
	defer timer.Stop()
	return <-copied, exit
}

// end makes the running child stop: politely, then not.
func (p *process) end(pid int, exited <-chan error) error {
	_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone already
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case err := <-exited:
		return err
	case <-timer.C:
	}
	p.log.Warn("process does not stop, killing it", "process", p.name, "pid", pid, "after", p.grace)
	_ = syscall.Kill(-pid, syscall.SIGKILL) // the whole group, of which it is the leader
	return <-exited
}

func (p *process) setPID(pid int, exit error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = pid
	if pid == 0 {
		p.lastExit = exitText(exit)
	}
}

func exitText(err error) string {
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
