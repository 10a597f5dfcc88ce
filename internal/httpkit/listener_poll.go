//go:build !windows

package httpkit

import "golang.org/x/sys/unix"

// pending reports whether the accept queue of q holds a connection.
func pending(q queue) (found bool) {
	control(q, func(fd int) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		found = n > 0 || err == unix.EINTR
	})
	return found
}
