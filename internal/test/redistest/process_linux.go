package redistest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startChild starts cmd and returns a channel that is closed when the process has ended.
//
// The child must not outlive the test binary, even if that panics, times out or is killed, which all skip
// the Cleanup functions. So it gets Pdeathsig. The kernel sends that signal when the thread that forked ends,
// not the process, and the Go runtime may end any idle thread. So one goroutine locks its thread from before
// the fork until the child has ended.
//
// The child leads its own process group, so that kill also reaches the processes that Redis forks to write
// a snapshot or rewrite the append-only file. They would write into a directory that the test removes.
func startChild(cmd *exec.Cmd) (<-chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	exited := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // the log has the reason of the exit
		close(exited)
	}()
	return exited, <-started
}

func killChild(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
