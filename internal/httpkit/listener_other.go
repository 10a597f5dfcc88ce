//go:build !linux

package httpkit

// refuseHandshakes has no effect on systems that cannot filter the segments of a listening socket.
func refuseHandshakes(queue) bool { return false }
