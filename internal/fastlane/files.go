//go:build !windows

package fastlane

import "syscall"

// fileLimit returns the maximum number of open files of the process. Package os has raised the soft limit to
// the hard limit.
func fileLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > maxFiles {
		return maxFiles
	}
	return int(r.Cur)
}
