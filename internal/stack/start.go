package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// start brings the stack up in the background and waits until everything is ready and the gateway
// uses every reader.
func (c *command) start() error {
	if pid, control, err := running(c.cfg); err != nil {
		return err
	} else if pid != 0 {
		fmt.Fprintf(c.out, "The stack is already running (pid %d), with the settings it was started with; restart it for others.\n", pid)
		return c.awaitSettled(c.ctx, pid, control)
	}
	if err := makeRunDir(c.cfg.RunDir); err != nil {
		return err
	}
	log, err := openLog(c.cfg.file("stack.log"), maxLogBytes)
	if err != nil {
		return err
	}
	defer log.Close()
	if log.size > maxLogBytes/2 { // the supervisor writes to the file itself and says little: at a start is often enough
		if err := log.rotate(); err != nil {
			return err
		}
	}
	begin := log.size
	path, err := self()
	if err != nil {
		return err
	}
	child := &exec.Cmd{
		Path: path, Args: append([]string{"local", "run", "-background"}, c.args...),
		Stdout: log.file, Stderr: log.file,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // away from this terminal and its signals
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	ctx, died := context.WithCancelCause(c.ctx)
	defer died(nil)
	go func() { died(supervisorExit(<-exited, log.path, begin)) }()
	fmt.Fprintln(c.out, "Starting:")
	return c.awaitSettled(ctx, child.Process.Pid, address(c.cfg.Port))
}

// awaitSettled reports progress until the stack of the supervisor with this pid and control address
// is settled, for c.startWait at most. When ctx ends first, its cause is the error.
func (c *command) awaitSettled(ctx context.Context, pid int, control string) error {
	ctx, cancel := context.WithTimeout(ctx, c.startWait)
	defer cancel()
	st := newProgress(c.out).await(ctx, func(ctx context.Context) (State, error) {
		st, err := getState(ctx, control)
		if err == nil && st.PID != pid {
			err = errors.New("another stack answers on this port")
		}
		return st, err
	})
	switch {
	case st.settled():
		c.cfg.printAddresses(c.out)
		return nil
	case c.ctx.Err() != nil:
		return fmt.Errorf("interrupted; the stack goes on starting in the background, `local stop` (make stop) ends it")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("not ready after %s: %s; it goes on starting: `local status` (make health) tells when it is ready, the logs are in %s",
			c.startWait, st.missingText(), c.cfg.RunDir)
	}
	return context.Cause(ctx)
}

// supervisorExit returns why the supervisor ended: the sentence that it wrote to its log since
// begin, else its exit.
func supervisorExit(exit error, path string, begin int64) error {
	if text, err := os.ReadFile(path); err == nil && begin <= int64(len(text)) {
		for line := range strings.Lines(string(text[begin:])) {
			if why, ok := strings.CutPrefix(line, "error: "); ok {
				return errors.New(strings.TrimSpace(why))
			}
		}
	}
	return fmt.Errorf("the supervisor ended (%s), see %s", exitText(exit), path)
}
