package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// runVisibly runs a command on the terminal of this one. An error that the command has printed itself becomes an
// exitError.
func (p *program) runVisibly(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, p.out, p.err
	err := p.run(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitError(max(1, exit.ExitCode()))
	} else if err != nil {
		return fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	return nil
}

// run runs a command, which gets a SIGTERM when this one is interrupted.
func (p *program) run(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(p.ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // it may have ended
	defer stop()
	return cmd.Wait()
}

// wait blocks for a time. It returns an error if this command is interrupted.
func (p *program) wait(d time.Duration) error {
	select {
	case <-p.ctx.Done():
		return errors.New("interrupted")
	case <-time.After(d):
		return nil
	}
}

// replaceBy replaces this process by a command, which then gets the signals of the terminal.
func replaceBy(args, env []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", args[0], syscall.Exec(path, args, env))
}
