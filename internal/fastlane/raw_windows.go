package fastlane

import (
	"net"
	"syscall"
)

// rawConn returns nil, so that connections are read and written through net.Conn: the sockets of Windows are not
// non-blocking, and read and write would block a thread.
func rawConn(net.Conn) syscall.RawConn { return nil }
