package cache

import (
	"context"
	_ "embed"
	"fmt"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/redisnode"
)

// source is where a replica reads from: one Redis node. All methods block until ctx is done at
// most.
type source interface {
	// step returns one instant of the shard: the log after the watermark, and the values of missed keys.
	step(ctx context.Context, q query) (step, error)
	// current reports why what step returns may be older than what the primary has; nil when it is not.
	current(ctx context.Context) error
	// relayed reports whether the node may be a Redis replica, which can lag behind what this replica has
	// from another node.
	relayed() bool
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
	keys  keys
	mean  atomic.Int64 // size of a value, in bytes, as the pages have shown so far; 0 before the first
	page  byteBound    // of the values of a page; grows after a snapshot
}

func newRedisSource(f *redisnode.Finder, k keys) *redisSource {
	return &redisSource{redis: f, keys: k, page: byteBound{least: pageLeast, most: pageBytes}}
}

func (s *redisSource) step(ctx context.Context, q query) (step, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return step{}, err
	}
	st, err := runStep(ctx, n, s.keys, q)
	if err != nil {
		s.redis.Doubt(n, err)
		return step{}, fmt.Errorf("read the log: %w", err)
	}
	return st, nil
}

func (s *redisSource) current(ctx context.Context) error {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return err
	}
	return s.redis.Current(ctx, n)
}

func (s *redisSource) relayed() bool { return s.redis.ReadsFrom() == redisnode.Replica }

// stepTimeout bounds one round trip of a replica.
const stepTimeout = time.Second
