package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"heavy-read-api/internal/failover"
	"heavy-read-api/internal/stack"
	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

const (
	stopWait = 20 * time.Second
	// followWait bounds the wait for writer, readers and the other servers after a failover: their connections move
	// within a second or two, and the nodes of a cluster learn of a new Redis replica by gossip.
	followWait = 15 * time.Second
	exitWait   = 2 * time.Second // longest wait for the end of the supervisor's process after it has released the run folder
)

// processes is the runtime without Docker: a supervisor in the background runs the stack.
type processes struct {
	*program
	cfg layout.Config
}

var errNotRunning = errors.New("the stack is not running: make start")

// start starts the supervisor in the background and waits until everything is ready and the gateway uses every
// reader.
func (r *processes) start() error {
	if pid, addr, err := rundir.Running(r.cfg.RunDir); err != nil {
		return err
	} else if pid != 0 {
		fmt.Fprintf(r.out, "The stack is already running (pid %d) with the settings of its start; make restart applies others.\n", pid)
		return r.awaitSettled(r.ctx, pid, addr)
	}
	if err := rundir.Make(r.cfg.RunDir); err != nil {
		return err
	}
	path := r.cfg.File("stack.log")
	log, begin, err := supervisor.OpenOwnLog(path)
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := supervisor.Self()
	if err != nil {
		return err
	}
	child := &exec.Cmd{
		Path: self, Args: []string{"local", "run", "-background"},
		Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // out of reach of this terminal's signals
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	ctx, died := context.WithCancelCause(r.ctx)
	defer died(nil)
	go func() { died(supervisorExit(<-exited, path, begin)) }()
	fmt.Fprintln(r.out, "Starting:")
	return r.awaitSettled(ctx, child.Process.Pid, supervisor.Address(r.cfg.Port))
}

// awaitSettled prints progress until the stack of the supervisor with this pid and control address is settled,
// for startWait at most. When ctx ends first, its cause is the error.
func (r *processes) awaitSettled(ctx context.Context, pid int, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, r.startWait)
	defer cancel()
	st := stack.NewProgress(r.out).Await(ctx, func(ctx context.Context) (state.Stack, error) {
		st, err := control.State(ctx, addr)
		if err == nil && st.PID != pid {
			err = errors.New("another stack answers on this port")
		}
		return st, err
	})
	switch {
	case st.Settled():
		stack.PrintAddresses(r.cfg, st)
		return nil
	case r.ctx.Err() != nil:
		return errors.New("interrupted; the stack continues to start in the background, make stop ends it")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("not ready after %s: %s; it continues to start in the background, see make health; the logs are in %s",
			r.startWait, st.MissingText(), r.cfg.RunDir)
	}
	return context.Cause(ctx)
}

// supervisorExit returns why the supervisor ended: the error that it has written to its log since begin, else
// its exit.
func supervisorExit(exit error, path string, begin int64) error {
	if text, err := os.ReadFile(path); err == nil && begin <= int64(len(text)) {
		for line := range strings.Lines(string(text[begin:])) {
			if why, ok := strings.CutPrefix(line, "error: "); ok {
				return errors.New(strings.TrimSpace(why))
			}
		}
	}
	return fmt.Errorf("the supervisor ended (%s), see %s", supervisor.ExitText(exit), path)
}

// stop ends the supervisor and waits until it is gone.
func (r *processes) stop() error {
	pid, _, err := rundir.Running(r.cfg.RunDir)
	if err != nil {
		return err
	}
	if pid == 0 {
		rundir.Forget(r.cfg.RunDir)
		fmt.Fprintln(r.out, "The stack is not running.")
		return nil
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the supervisor (pid %d): %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, stopWait)
	defer cancel()
	if !poll.Until(ctx, func() bool { now, _, err := rundir.Running(r.cfg.RunDir); return err == nil && now != pid }) {
		return fmt.Errorf("the supervisor (pid %d) has not stopped after %s, see %s", pid, time.Since(began).Round(time.Second), r.cfg.File("stack.log"))
	}
	// Only the process itself is left, which writes its last lines. It stays a zombie where no process reaps orphans;
	// that is not an error.
	ctx, cancel = context.WithTimeout(r.ctx, exitWait)
	defer cancel()
	poll.Until(ctx, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	fmt.Fprintf(r.out, "Stopped in %.1f s.\n", time.Since(began).Seconds())
	if kept := r.cfg.DataDirs(); len(kept) > 0 {
		fmt.Fprintf(r.out, "The data of Redis stays in %s.\n", strings.Join(kept, ", "))
	}
	return nil
}

// clean stops the stack and deletes the run folder.
func (r *processes) clean() error {
	if err := r.stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.cfg.RunDir); err != nil {
		return fmt.Errorf("delete the run folder: %w", err)
	}
	fmt.Fprintf(r.out, "Deleted %s.\n", r.cfg.RunDir)
	return nil
}

func (r *processes) address(role string) (string, error) {
	if role == state.Writer {
		return supervisor.Address(r.cfg.WriterPort), nil
	}
	return supervisor.Address(r.cfg.GatewayPort), nil
}

// control returns the address of the running stack's control API.
func (r *processes) control() (string, error) {
	pid, addr, err := rundir.Running(r.cfg.RunDir)
	if err == nil && pid == 0 {
		err = errNotRunning
	}
	return addr, err
}

func (r *processes) state() (state.Stack, error) {
	addr, err := r.control()
	if err != nil {
		return state.Stack{}, err
	}
	st, err := control.State(r.ctx, addr)
	if err != nil {
		return state.Stack{}, fmt.Errorf("ask the supervisor for the state: %w", err)
	}
	return st, nil
}

func (r *processes) scale(readers int) error {
	addr, err := r.control()
	if err != nil {
		return err
	}
	st, err := control.Scale(r.ctx, addr, readers)
	if err != nil {
		return err
	}
	printHealth(r.out, st)
	return nil
}

// failover fails over the stack's Redis, with the settings that the stack was started with.
func (r *processes) failover() error {
	st, err := r.state()
	if err != nil {
		return err
	}
	env := r.cfg.Env
	if st.Redis.Layout != "" {
		password, err := layout.ReadPassword(r.cfg.File(layout.PasswordFile))
		if err != nil {
			return err
		}
		env = append(slices.Clone(env), layout.OwnRedisEnv(st.Redis.Addrs, st.Redis.MasterName, password)...)
	}
	cfg, err := failover.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		return err
	}
	logging.Disable() // the client's log repeats the report
	cfg.Out = r.out
	cfg.Name = func(addr string) string {
		for _, p := range st.Processes {
			if p.Address == addr {
				return p.Name
			}
		}
		return addr
	}
	err = failover.Run(r.ctx, cfg)
	if errors.Is(err, failover.ErrSingle) && st.Redis.Layout != "" {
		err = fmt.Errorf("%w; REDIS=%s or REDIS=%s start several", err, layout.WithSentinel, layout.Cluster)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(r.out, "Waiting until every process has followed.")
	ctx, cancel := context.WithTimeout(r.ctx, followWait)
	defer cancel()
	if !poll.Until(ctx, func() bool { st, err = r.state(); return err == nil && st.Well() }) {
		fmt.Fprintf(r.out, "Not every process has followed within %s; make health shows which.\n", followWait)
	}
	return nil
}

// logs replaces this process by a tail, which follows the files over their rotation. The lines have the
// processes' names, so the names of the files (-q) are not printed.
func (r *processes) logs(service string) error {
	patterns := []string{service + "*.log"}
	if service == "redis" {
		patterns = append(patterns, "sentinel*.log")
	}
	args := []string{"tail", "-q", "-n", "20", "-F"}
	found := len(args)
	for _, pattern := range patterns {
		files, err := filepath.Glob(r.cfg.File(pattern))
		if err != nil {
			return err
		}
		args = append(args, files...)
	}
	if len(args) == found {
		return errors.New("there are no logs yet: make start")
	}
	return replaceBy(args, os.Environ())
}

// build builds the programs of writer and reader; the supervisor starts its own program in their roles.
func (r *processes) build() error {
	return r.runVisibly(exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-o", "bin/", "./writer", "./reader"))
}
