package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/wire"
)

// perAddress is the number of connections from one local address, whose ports are limited.
const perAddress = 10_000

// Idle opens connections to a server and reads a post once on each. The caller closes them, also after an error.
func Idle(ctx context.Context, addr, path string, connections int) (held []*wire.Conn, err error) {
	for i := range connections {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/perAddress))}
		c, err := wire.DialFrom(ctx, from, addr)
		if err != nil {
			return held, fmt.Errorf("open connection %d: %w", i+1, err)
		}
		held = append(held, c)
		a, err := c.Get(path, "")
		if err != nil {
			return held, fmt.Errorf("read on connection %d: %w", i+1, err)
		}
		if a.Status != http.StatusOK {
			return held, load.Wrong("connection %d received status %d", i+1, a.Status)
		}
	}
	return held, nil
}
