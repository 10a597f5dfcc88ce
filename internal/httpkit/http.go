// Package httpkit is what the HTTP servers of the stack share: router, parameters, entity tags, problem documents, metrics,
// and a server that drains before it stops.
package httpkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// stopTimeout is how long requests in flight may take once the server stops: with Drain it
	// stays under the 10 s after which a supervisor kills.
	stopTimeout = 6 * time.Second
	// Drain is how long a stopping process that already answers "not ready" goes on serving, so
	// that a gateway that asks every second stops sending before the listener closes.
	Drain = 2500 * time.Millisecond
)

// Server is a server that Serve can run and stop in order, such as an HTTPServer.
type Server interface {
	Serve(net.Listener) error
	Drain() // from now on every answer carries Connection: close
	Shutdown(context.Context) error
	Close() error
}

// Serve answers on ln until ctx is done, then stops in order: stopping is called (readiness turns
// to 503), the server goes on for drain, with answers after which their connections close, the
// listener closes, requests in flight finish. It returns nil after an orderly stop, also when some
// requests had to be cut at the bound.
func Serve(ctx context.Context, ln net.Listener, srv Server, drain time.Duration, stopping func()) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	if stopping != nil {
		stopping()
	}
	srv.Drain()
	if drain > 0 {
		timer := time.NewTimer(drain)
		defer timer.Stop()
		select {
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		case <-timer.C:
		}
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(bound); errors.Is(err, context.DeadlineExceeded) {
		return srv.Close()
	} else if err != nil {
		return fmt.Errorf("stop %s: %w", ln.Addr(), err)
	}
	return nil
}
