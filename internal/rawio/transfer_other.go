//go:build !linux

package fastlane

import "syscall"

// read and write transfer bytes between b and a non-blocking socket. If there is an error, the number of bytes is 0.

func read(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Read(int(fd), b)
	return max(n, 0), err
}

func write(fd uintptr, b []byte) (int, error) {
	n, err := syscall.Write(int(fd), b)
	return max(n, 0), err
}
