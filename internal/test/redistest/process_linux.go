package redistest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startChild starts cmd and returns a channel that is closed when it has ended.
//
// The child must not outlive the test binary, also when that panics, runs into
// its timeout or is killed, and none of these runs a Cleanup. Linux sends
// Pdeathsig for it. The kernel sends it when the THREAD that forked ends, not
// the process, and the Go runtime ends threads as it likes: an idle test would
// lose its server. So one goroutine keeps its thread to itself from before the
// fork until the child is gone.
//
// The child leads a process group of its own, so that kill also reaches a
// helper it forked to write a snapshot or rewrite its log, which would go on
// writing into a directory that the test is about to remove.
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
		_ = cmd.Wait() // how it ended does not matter: the log tells
		close(exited)
	}()
	return exited, <-started
}

func killChild(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
