//go:build !linux

package machine

import (
	"errors"
	"time"
)

// ProcessCPU returns the CPU time of one process and its children, in ticks of 10 ms.
func ProcessCPU(pid int) (time.Duration, error) { return TreeCPU(pid) }

// ThreadWait returns an error, because the platform does not report it.
func ThreadWait(int) (time.Duration, error) {
	return 0, errors.New("this platform does not report how long a thread waits for a core")
}
