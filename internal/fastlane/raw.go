//go:build !windows

package fastlane

import (
	"net"
	"syscall"
)

// rawConn returns the raw connection of nc, nil if it has none.
func rawConn(nc net.Conn) syscall.RawConn {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
