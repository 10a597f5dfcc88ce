package suite

import (
	"syscall"
	"time"
)

// ownCPU returns the CPU time of this process, which sends the reads at a constant rate.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
