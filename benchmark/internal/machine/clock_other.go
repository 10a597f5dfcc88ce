//go:build !linux

package machine

import "time"

// ProcessCPU returns the CPU time of one process and its children, in ticks of 10 ms.
func ProcessCPU(pid int) (time.Duration, error) { return TreeCPU(pid) }
