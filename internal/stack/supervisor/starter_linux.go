package supervisor

import "syscall"

// Self is the running program. The link goes on working when the file is gone, as after
// `go run` or a rebuild: a restarted child is the same build as its siblings.
func Self() (string, error) { return "/proc/self/exe", nil }

// childAttr ties a child to the supervisor: the kernel kills it when the supervisor dies, also by
// SIGKILL, which no handler can catch.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
