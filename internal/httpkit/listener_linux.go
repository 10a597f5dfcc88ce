package httpkit

import "golang.org/x/sys/unix"

// withoutSYN is a socket filter that drops the segments that begin a handshake. The other segments complete
// handshakes that have begun.
var withoutSYN = [...]unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},            // load the flags of the TCP header
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x02, Jf: 1}, // if SYN is not set, skip the next line
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},                           // drop the segment
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},                  // keep the segment
}

// refuseHandshakes makes the kernel ignore clients that begin to connect to q, and reports whether it does so. They
// try again after a second and then reach the next process, or are refused. shutdown(2) is not an alternative: it
// resets the connections in the queue, as close(2) does.
func refuseHandshakes(q queue) bool {
	ok := false
	control(q, func(fd int) {
		// The error is ENOTSUP for Multipath TCP.
		ok = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(withoutSYN)), Filter: &withoutSYN[0]}) == nil
	})
	return ok
}
