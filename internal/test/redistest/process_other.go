//go:build !linux

package redistest

import (
	"os/exec"
	"syscall"
)

// startChild starts cmd and returns a channel that is closed when it has ended.
// Here nothing ties the child to a test binary that is killed, so it stays in
// the terminal's process group: an interrupt from the keyboard ends both.
func startChild(cmd *exec.Cmd) (<-chan struct{}, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter: the log tells
		close(exited)
	}()
	return exited, nil
}

func killChild(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
