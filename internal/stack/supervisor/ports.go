package supervisor

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

// Host is the only address that the stack listens on: it is a development stack without TLS.
const Host = "127.0.0.1"

// Address returns host:port of a port of the stack.
func Address(port int) string { return net.JoinHostPort(Host, strconv.Itoa(port)) }

// Port is a TCP port that a process listens on, and the setting that changes it.
type Port struct {
	Number int
	Env    string
}

// portInUseError reports a port that something else uses.
type portInUseError struct {
	port Port
	name string // name of the process that needs the port
	// No program listens: the kernel has given the port to an outgoing connection, and keeps it for a minute after that
	// connection has ended (TIME-WAIT).
	outgoing bool
}

func (e *portInUseError) Error() string {
	if e.outgoing {
		return fmt.Sprintf("port %d, which %s needs, is the local port of an outgoing connection, open or closed less than a minute ago: try again in a minute, or set %s to another port",
			e.port.Number, e.name, e.port.Env)
	}
	return fmt.Sprintf("port %d is in use and %s needs it: stop what listens there, or set %s to another port",
		e.port.Number, e.name, e.port.Env)
}

// PortError returns a sentence about the failed attempt of the named process to listen on a port.
func PortError(p Port, name string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		conn, err := net.DialTimeout("tcp", Address(p.Number), time.Second)
		if err == nil {
			conn.Close()
		}
		return &portInUseError{port: p, name: name, outgoing: errors.Is(err, syscall.ECONNREFUSED)}
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not listen on port %d: this user lacks the permission, so set %s to a port above 1023", name, p.Number, p.Env)
	}
	return fmt.Errorf("%s cannot listen on port %d (%s): %w", name, p.Number, p.Env, err)
}

// CheckPorts reports the first port of a process on which it cannot listen.
func CheckPorts(s Spec) error {
	for _, p := range s.Ports {
		ln, err := net.Listen("tcp", Address(p.Number))
		if err != nil {
			return PortError(p, s.Name, err)
		}
		ln.Close()
	}
	return nil
}
