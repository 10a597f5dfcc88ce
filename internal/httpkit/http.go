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
	// stopTimeout bounds the wait for requests in flight. Drain and stopTimeout together are shorter than
	// the 10 s after which supervisors kill a process.
	stopTimeout = 6 * time.Second
	// Drain is the default time for which a stopping process continues to serve while /ready answers 503.
	// It is long enough for a gateway with a check every second to stop sending before the listener closes.
	Drain = 2500 * time.Millisecond
)

// Server is a server that Serve can run and stop, such as an HTTPServer.
type Server interface {
	Serve(net.Listener) error
	Drain() // adds Connection: close to all later answers
	Shutdown(context.Context) error
	Close() error
}

// Serve runs srv on ln until ctx is done and then stops it in this order: it calls stopping, which makes
// /ready answer 503; it continues to serve for drain, with Connection: close in all answers; it closes the
// listener; it waits for requests in flight. It returns nil after an orderly stop, even if requests were
// aborted after stopTimeout.
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
