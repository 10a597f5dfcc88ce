//go:build !linux

package redistest

import (
	"os/exec"
	"syscall"
)

// startChild starts cmd and returns a channel that is closed when the process has ended. Without Pdeathsig
// the child would outlive a killed test binary, so it stays in the terminal's process group, where Ctrl-C
// ends both.
func startChild(cmd *exec.Cmd) (<-chan struct{}, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the log has the reason of the exit
		close(exited)
	}()
	return exited, nil
}

func killChild(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
