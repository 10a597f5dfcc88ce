package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports lie below the range that Linux and macOS hand out for outgoing
// connections. There a client that redials a killed server could get the
// server's own port as its source port: it would connect to itself, and the
// server could not come back. The upper half of them is for the cluster bus.
const (
	firstPort = 20000
	numPorts  = 6000
	busOffset = numPorts
)

// port is a TCP port on 127.0.0.1 that no other test takes. Test binaries run
// in parallel, and a server that is down for a moment holds no socket, so the
// reservation is a UDP socket of the same number: it excludes every other
// process, does not stand in the way of TCP, and the kernel drops it with the
// process that holds it.
type port struct {
	number      int
	reservation net.PacketConn // nil if the caller vouches for the port
}

func reservePort() (port, error) {
	var last error
	for range 200 {
		n := firstPort + rand.IntN(numPorts)
		addr := localAddr(n)
		reservation, err := net.ListenPacket("udp", addr)
		if err != nil {
			last = err
			continue
		}
		// Somebody who does not know the reservations may sit there.
		probe, err := net.Listen("tcp", addr)
		if err != nil {
			_ = reservation.Close()
			last = err
			continue
		}
		_ = probe.Close()
		return port{n, reservation}, nil
	}
	return port{}, fmt.Errorf("find a free port from %d: %w", firstPort, last)
}

// FreePort returns a TCP port that the kernel gives to no outgoing connection, and no test that asks here takes
// until tb ends, on whatever address of 127.0.0.0/8 it is used.
func FreePort(tb testing.TB) int {
	tb.Helper()
	p, err := reservePort()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.release)
	return p.number
}

// localAddr is host:port of a port here.
func localAddr(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func (p port) release() {
	if p.reservation != nil {
		_ = p.reservation.Close()
	}
}
