package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are below the ephemeral range of Linux and macOS. Within it a client that redials a killed server
// could get the server's port as its source port, connect to itself, and keep the server from restarting.
// Each port has a second one, at busOffset, for the cluster bus.
const (
	firstPort = 20000
	numPorts  = 6000
	busOffset = numPorts
)

// port is a TCP port on 127.0.0.1 reserved for one test. Test binaries run in parallel, and a server that is
// down holds no TCP socket. So the reservation is a UDP socket with the same number: it excludes other tests,
// does not conflict with TCP, and the kernel closes it when the test binary ends.
type port struct {
	number      int
	reservation net.PacketConn // nil for a port set with the option Port
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
		// A process without a reservation may be listening there.
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

// FreePort returns a free TCP port outside the ephemeral range. No other caller gets it until tb ends, so it
// may be used on any address of 127.0.0.0/8.
func FreePort(tb testing.TB) int {
	tb.Helper()
	p, err := reservePort()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.release)
	return p.number
}

// localAddr returns 127.0.0.1:port.
func localAddr(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func (p port) release() {
	if p.reservation != nil {
		_ = p.reservation.Close()
	}
}
