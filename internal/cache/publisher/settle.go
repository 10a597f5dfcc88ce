package publisher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
)

// call is a call of write.lua.
type call struct {
	node     *redisnode.Node
	writes   []protocol.Write
	id       []byte        // write id
	deadline time.Time     // by this host's clock
	expires  int64         // the deadline by Redis's clock, in Unix ms
	before   protocol.Head // a head of the log before the call, without an epoch
}

// lost reports whether err, the error of a call, says that its reply did not arrive: the script may have
// run, and Redis knows. An error that Redis replied does not say so.
func lost(err error) bool {
	var reply redis.Error
	return !errors.As(err, &reply) && !errors.Is(err, ErrUnknown) && errors.Is(classify(err), ErrUnknown)
}

// resolvePause is the first pause between two questions for the outcome of a call, and a quarter of the longest
// one after the deadline. The pauses double: a reply that was cut off is settled soon, and Redis is not asked
// often in the meantime.
const resolvePause = 10 * time.Millisecond

// resolve returns what became of a call whose reply was lost, because of why. A commit that took place is
// found by its write id. That it did not is certain once its deadline has passed by Redis's clock. settle
// blocks until a quarter of Timeout after the deadline, or until ctx is done, and wraps ErrUnknown then.
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

// fetchOutcome runs settle.lua.
func (p *Publisher) fetchOutcome(ctx context.Context, c *call) (reply protocol.WriteReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout/8) // so that a dead connection leaves time for another one
	defer cancel()
	n, err := p.cfg.Redis.Node(ctx)
	if err != nil {
		return reply, err
	}
	var before []byte
	if c.before.WriteID != 0 {
		before = binary.BigEndian.AppendUint64(nil, c.before.WriteID)
	}
	raw, err := protocol.RunLoaded(ctx, n, func() *redis.Cmd {
		return protocol.SettleScript.EvalSha(ctx, n, []string{p.keys.Epoch, p.keys.Log}, c.id, c.expires, len(c.writes), c.before.Version, before)
	}).Slice()
	if err != nil {
		p.cfg.Redis.ReportError(n, err)
		return reply, err
	}
	reply, err = protocol.DecodeWriteReply(raw, len(c.writes))
	if err == nil && reply.State == protocol.NotCommitted && n != c.node {
		err = errors.New("another server was asked, which may lack what the one before it took")
	}
	return reply, err
}

// resolved returns what a reply of settle.lua says.
func (p *Publisher) resolved(c *call, reply protocol.WriteReply) ([]Result, error) {
	switch reply.State {
	case protocol.NotCommitted:
		return nil, fmt.Errorf("%w: the reply of Redis was lost, but its log does not have the write, and the deadline has passed", ErrNotWritten)
	case protocol.Unprovable:
		return nil, fmt.Errorf("%w: the reply of Redis was lost, and its log does not have all writes since", ErrUnknown)
	}
	if p.cfg.Replicas > 0 {
		return nil, fmt.Errorf("%w: Redis has the write, but the reply that counts its Redis replicas was lost", ErrUnknown)
	}
	return resultsOf(reply, c.writes)
}
