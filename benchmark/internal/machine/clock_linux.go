package machine

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU returns the CPU time of one process, without its children, in nanoseconds instead of the ticks of 10 ms that
// TreeCPU has.
func ProcessCPU(pid int) (time.Duration, error) {
	const schedulerClock = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|schedulerClock, &t); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// ThreadWait returns how long the main thread of a process has waited for a core while it could run.
func ThreadWait(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the waits of process %d: %w", pid, err)
	}
	return parseWait(string(text))
}

// parseWait reads the second field of schedstat: the time in the run queue, in nanoseconds.
func parseWait(text string) (time.Duration, error) {
	var ran, waited int64
	if _, err := fmt.Sscan(text, &ran, &waited); err != nil {
		return 0, fmt.Errorf("parse schedstat %q: %w", text, err)
	}
	return time.Duration(waited), nil
}
