package suite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
)

const (
	balanceWindow = 250 * time.Millisecond
	readyLimit    = 90 * time.Second // limit for a reader to take its snapshot, or for Redis to load its append-only file
	spreadLimit   = 20 * time.Second // limit for the gateway to use a ready reader
	faultLimit    = 5 * time.Minute  // limit of the reads during a fault
	undoLimit     = 2 * time.Minute  // limit to restore the stack after a fault
)

// restore runs undo even when ctx has ended, so that the benchmark leaves the stack as it was. It adds an error of
// undo to err.
func (s *suite) restore(ctx context.Context, err *error, what string, undo func(context.Context) error) {
	if ctx.Err() != nil {
		s.progress.Say("stopping: %s", what)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if e := undo(ctx); e != nil {
		// The error of a stopped run is not shown, so this one is also a note.
		s.note("THE STACK WAS NOT RESTORED (%s failed: %v): see `make health`.", what, e)
		*err = errors.Join(*err, fmt.Errorf("%s: %w", what, e))
	}
}

// wait blocks for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// awaitSync waits until every reader is in sync with Redis.
func (s *suite) awaitSync(ctx context.Context) error {
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return err
	}
	return target.Await(ctx, readyLimit, addrs...)
}

// request sends one request over a new connection.
func (s *suite) request(ctx context.Context, addr string, send func(*wire.Conn) (wire.Answer, error)) (wire.Answer, error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return wire.Answer{}, err
	}
	defer conn.Close()
	return send(conn)
}

// poll repeats check until it returns nil, for at most limit.
func poll(ctx context.Context, limit time.Duration, check func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
