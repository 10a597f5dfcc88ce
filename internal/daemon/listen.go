package daemon

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// Listen binds Host and Port, and passes the bound address to c.Listening. The listener is not one of Multipath TCP,
// Go's default, because Linux cannot drain the accept queue of such a listener (httpkit.Listener.Drain).
func (c *Common) Listen() (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", c.Port, err)
	}
	if c.Listening != nil {
		c.Listening(ln.Addr().String())
	}
	return ln, nil
}
