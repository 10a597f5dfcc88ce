//go:build !linux

package supervisor

import (
	"os"
	"syscall"
)

func Self() (string, error) { return os.Executable() }

// childAttr cannot tie a child to the supervisor here: after a kill -9 of the supervisor the
// children go on, and the next start names the port that one of them holds.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
