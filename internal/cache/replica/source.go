package replica

import (
	"context"
	"heavy-read-api/internal/cache/protocol"

	_ "embed"
	"fmt"
	"heavy-read-api/internal/redisnode"
	"sync/atomic"
	"time"
)

// source is where a replica reads from: one Redis node. All methods block until ctx is done at
// most.
type source interface {
	// step returns one instant of the shard: the log after the watermark, and the values of missed keys.
	fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// current reports why what step returns may be older than what the primary has; nil when it is not.
	current(ctx context.Context) error
	// relayed reports whether the node may be a Redis replica, which can lag behind what this replica has
	// from another node.
	fromReplica() bool
	// open prepares a snapshot of all values; it begins with the first page. The caller closes the
	// pages.
	open(ctx context.Context) (pages, error)
}

// Bounds of a step.
const (
	stepBytes = 2 << 20 // of entries and values, and the rest of a commit; fewer on a slow link
	stepLeast = 16 << 10
)

// redisSource reads from the Redis node that holds the shard.
type redisSource struct {
	redis *redisnode.Finder
	keys  protocol.Keys
	mean  atomic.Int64 // size of a value, in bytes, as the pages have shown so far; 0 before the first
	page  byteBound    // of the values of a page; grows after a snapshot
}

func newRedisSource(f *redisnode.Finder, k protocol.Keys) *redisSource {
	return &redisSource{redis: f, keys: k, page: byteBound{least: pageLeast, most: pageBytes}}
}

func (s *redisSource) fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return protocol.LogStep{}, err
	}
	st, err := protocol.FetchStep(ctx, n, s.keys, q)
	if err != nil {
		s.redis.ReportError(n, err)
		return protocol.LogStep{}, fmt.Errorf("read the log: %w", err)
	}
	return st, nil
}

func (s *redisSource) current(ctx context.Context) error {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return err
	}
	return s.redis.CheckFresh(ctx, n)
}

func (s *redisSource) fromReplica() bool { return s.redis.ReadsFrom() == redisnode.Replica }

// stepTimeout bounds one round trip of a replica.
const stepTimeout = time.Second
