package supervisor

import (
	"os/exec"
	"runtime"
)

// starter starts every child from one operating-system thread that lives as long as the
// supervisor does.
//
// Linux delivers Pdeathsig when the thread that forked the child ends, not when the process does, and the Go
// runtime ends threads (a goroutine that exits while locked ends its thread). A child that was started from an
// arbitrary goroutine could be killed while the supervisor runs. So one goroutine is locked to its thread,
// starts every child, and ends after the last child.
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
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for r := range s.requests {
			r.done <- r.cmd.Start()
		}
	}()
	return s
}

// start starts cmd, which ends with the supervisor (see childAttr), in a process group of its own, so that Ctrl-C
// on the terminal reaches only the supervisor. It blocks until the process exists.
func (s *starter) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttr()
	done := make(chan error, 1)
	s.requests <- startRequest{cmd, done}
	return <-done
}

// close ends the thread. Every child has ended before, and no start follows.
func (s *starter) close() { close(s.requests) }
