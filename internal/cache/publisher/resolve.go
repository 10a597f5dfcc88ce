package publisher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
)

// lost reports whether the error of a call means that its reply did not arrive: then the script may have run, and the log
// shows whether it has. An error that Redis returned is a reply.
func lost(err error) bool {
	var reply redis.Error
	return !errors.As(err, &reply) && !errors.Is(err, ErrUnknown) && errors.Is(classify(err), ErrUnknown)
}

// resolvePause is the first pause between two requests for the outcome of a call, and a quarter of the longest one after
// the deadline. The pauses double, so that a reply that was cut off is resolved soon and Redis gets few requests.
const resolvePause = 10 * time.Millisecond

// resolve returns the results of a call whose reply was lost with the error why. The log shows a commit that took place by
// its write id. A commit did not take place when the log does not show it after its deadline by Redis's clock. resolve
// blocks until a quarter of Timeout after the deadline, or until ctx is done, and then wraps ErrUnknown.
func (p *Publisher) resolve(ctx context.Context, c *call, why error) ([]Result, error) {
	ctx, cancel := context.WithDeadline(ctx, c.deadline.Add(p.cfg.Timeout/4))
	defer cancel()
	for pause := resolvePause; ; pause *= 2 {
		reply, err := p.fetchOutcome(ctx, c)
		if err == nil && reply.State != protocol.Pending {
			return p.resolved(c, reply)
		}
		timer := time.NewTimer(min(pause, max(0, time.Until(c.deadline))+4*resolvePause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", ErrUnknown, why)
		}
	}
}

// fetchOutcome runs settle.lua once.
func (p *Publisher) fetchOutcome(ctx context.Context, c *call) (reply protocol.WriteReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout/8) // short, so that after a dead connection there is time for another one
	defer cancel()
	n, err := p.cfg.Redis.Node(ctx)
	if err != nil {
		return reply, err
	}
	keys, args := (&protocol.OutcomeQuery{WriteID: c.id, Expires: c.expires, Writes: len(c.writes), Before: c.before}).Arguments(p.keys)
	raw, err := protocol.RunLoaded(ctx, n, func() *redis.Cmd {
		return protocol.SettleScript.EvalSha(ctx, n, keys, args...)
	}).Slice()
	if err != nil {
		p.cfg.Redis.ReportError(n, err)
		return reply, err
	}
	reply, err = protocol.DecodeWriteReply(raw, len(c.writes))
	if err == nil && reply.State == protocol.NotCommitted && n != c.node {
		err = errors.New("the outcome was requested from another server, which may lack writes of the one before it")
	}
	return reply, err
}

// resolved returns the results that a reply of settle.lua shows.
func (p *Publisher) resolved(c *call, reply protocol.WriteReply) ([]Result, error) {
	switch reply.State {
	case protocol.NotCommitted:
		return nil, fmt.Errorf("%w: the reply of Redis was lost; the deadline has passed, and the log does not have the write", ErrNotWritten)
	case protocol.Unprovable:
		return nil, fmt.Errorf("%w: the reply of Redis was lost, and the log no longer has all writes since then", ErrUnknown)
	}
	if p.cfg.Replicas > 0 {
		return nil, fmt.Errorf("%w: Redis has the write, but the reply with the number of confirming Redis replicas was lost", ErrUnknown)
	}
	return resultsOf(reply, c)
}
