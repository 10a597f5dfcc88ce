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

// portError returns why a process cannot listen on a port, in a sentence.
func portError(p port, name string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &portInUseError{port: p, name: name}
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s may not listen on port %d: this user lacks the permission, so set %s to a port above 1023", name, p.number, p.env)
	}
	return fmt.Errorf("%s cannot listen on port %d (%s): %w", name, p.number, p.env, err)
}

// checkPorts reports the first port of a process that cannot be had, with a portInUseError when
// something else listens there.
func checkPorts(s spec) error {
	for _, p := range s.ports {
		ln, err := net.Listen("tcp", address(p.number))
		if err != nil {
			return portError(p, s.name, err)
		}
		ln.Close()
	}
	return nil
}
