//go:build linux && !386 && !s390x

package rawio

import (
	"syscall"
	"unsafe"
)

// These calls transfer bytes between b and a non-blocking socket. They bypass the scheduler's bookkeeping for system
// calls, because these calls end within microseconds. With bookkeeping, the scheduler may give the goroutine's P to
// another thread, and the first call after a pause wakes the monitor thread, which then polls every 20 us. On two cores
// shared with the load generator, a request to the fast lane cost 10.3 us of CPU with syscall.Read and Conn.Write, and
// 8.6 us without the bookkeeping; a message to a reader cost 25 us less.
// Read reads from a non-blocking socket. If there is an error, the number of bytes is 0.
func Read(fd uintptr, b []byte) (int, error) { return transfer(syscall.SYS_READ, fd, b) }

// Write is the counterpart of Read.
func Write(fd uintptr, b []byte) (int, error) { return transfer(syscall.SYS_WRITE, fd, b) }

func transfer(call, fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// quiet reports whether the socket is open and has nothing to read.
func quiet(fd uintptr) bool {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == syscall.EAGAIN
}
