package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/redisnode"
)

// Bounds of the reads that Replica.Direct sends to one Redis node.
const (
	directReads = 8                      // number of connections, and so of reads at a time
	directWait  = 100 * time.Millisecond // longest wait for a connection
)

// DirectConfig returns c with a pool that bounds the number of concurrent reads of Replica.Direct, and the time for which
// further ones wait.
func DirectConfig(c redisnode.Config) redisnode.Config {
	c.PoolSize, c.PoolTimeout = directReads, directWait
	return c
}

// Direct reads key from Redis and bypasses the replica, for comparison with Get. Its answer may be newer than the next one
// from memory. If m requires anything, Direct reads from the primary: a Redis replica may lack it. It blocks at most until ctx
// is done, and fails sooner when too many direct reads wait.
func (r *Replica) Direct(ctx context.Context, key string, m Min) (e store.Entry, present bool, err error) {
	if r.cfg.Direct == nil {
		return e, false, fmt.Errorf("%w: the replica has no connections for direct reads", errUnavailable)
	}
	stored, err := r.directGet(ctx, r.keys.Prefix+key, m != Min{})
	if errors.Is(err, redis.Nil) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	written, rec, err := protocol.DecodeStored(stored)
	if err != nil {
		return e, false, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return store.Entry{Epoch: written.Epoch, Version: written.Version, Value: rec.Value}, true, nil
}

// directGet reads from the current server, or from its primary after that has confirmed its role. The Finder for direct
// reads may learn of a move only when the old server refuses the read, or is no primary; then directGet tries the new one.
func (r *Replica) directGet(ctx context.Context, key string, primary bool) (string, error) {
	for {
		n, err := r.cfg.Direct.Node(ctx)
		if err != nil {
			return "", err
		}
		on := n.Client
		if primary {
			on, err = r.cfg.Direct.Primary(ctx, n)
		}
		var stored string
		if err == nil {
			if stored, err = on.Get(ctx, key).Result(); err == nil || errors.Is(err, redis.Nil) {
				return stored, err
			}
			r.cfg.Direct.ReportError(n, err)
		}
		if !redisnode.Refused(err) {
			return "", err
		}
	}
}
