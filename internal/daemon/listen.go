package daemon

import (
	"fmt"
	"net"
	"strconv"
)

// Listen binds Host and Port, and passes the bound address to c.Listening.
func (c *Common) Listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", c.Port, err)
	}
	if c.Listening != nil {
		c.Listening(ln.Addr().String())
	}
	return ln, nil
}
