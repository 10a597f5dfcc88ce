package stack

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// port is a TCP port that a process wants, and the setting that moves it elsewhere.
type port struct {
	number int
	env    string
}

// portInUseError is the one sentence about a port that cannot be had.
type portInUseError struct {
	port port
	name string // who wanted it
}

func (e *portInUseError) Error() string {
	return fmt.Sprintf("port %d is in use and %s needs it: stop what listens there, or set %s to another port",
		e.port.number, e.name, e.port.env)
}

// checkPorts reports the first port of a process that cannot be had, with a portInUseError when
// something else listens there.
func checkPorts(s spec) error {
	for _, p := range s.ports {
		ln, err := net.Listen("tcp", address(p.number))
		if errors.Is(err, syscall.EADDRINUSE) {
			return &portInUseError{port: p, name: s.name}
		} else if err != nil {
			return fmt.Errorf("%s cannot listen on port %d (%s): %w", s.name, p.number, p.env, err)
		}
		ln.Close()
	}
	return nil
}
