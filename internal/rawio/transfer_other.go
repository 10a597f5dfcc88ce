//go:build !windows && (!linux || 386 || s390x)

package rawio

import "syscall"

// Read reads from a non-blocking socket. If there is an error, the number of bytes is 0.
func Read(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Read(int(fd), b)
	return max(n, 0), err
}

// Write is the counterpart of Read.
func Write(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Write(int(fd), b)
	return max(n, 0), err
}

// quiet reports whether the socket is known to be open and to have nothing to read.
func quiet(uintptr) bool { return false }
