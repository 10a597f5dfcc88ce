package supervisor

import (
	"os/exec"
	"runtime"
)

// starter starts every child from one operating-system thread that lives as long as the
// supervisor does.
//
// Linux delivers Pdeathsig when the THREAD that forked the child dies, not when the process does,
// and Go ends threads when it likes (a goroutine that exits while locked takes its thread along).
// Started from just any goroutine a child could be killed while the supervisor is alive and well.
// So one goroutine is locked to its thread, does every start, and ends only after the last child.
type starter struct {
	requests chan startRequest // closed by close
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

func newStarter() *starter {
	s := &starter{requests: make(chan startRequest)}
	go func() {
		runtime.LockOSThread() // never unlocked: with the goroutine ends the thread, and any child left
		for r := range s.requests {
			r.done <- r.cmd.Start()
		}
	}()
	return s
}

// start starts cmd, tied to the life of the supervisor and in a process group of its own, so that
// Ctrl-C on the terminal reaches the supervisor alone. It blocks until the process exists.
func (s *starter) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttr()
	done := make(chan error, 1)
	s.requests <- startRequest{cmd, done}
	return <-done
}

// close ends the thread. The caller has seen every child end, and starts none any more.
func (s *starter) close() { close(s.requests) }
