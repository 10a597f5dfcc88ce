package replica

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
)

// source is the Redis node that a replica reads from. All methods block at most until ctx is done.
type source interface {
	// fetchStep returns the log after the watermark, the current values of its keys and of missed keys, and the
	// head, all from one instant.
	fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// fetchNewest is fetchStep on the primary, after that has confirmed its role.
	fetchNewest(ctx context.Context, q protocol.Query) (protocol.LogStep, error)
	// current returns why a log step may lack writes that the primary has, or nil.
	current(ctx context.Context) error
	// fromReplica reports whether the node may be a Redis replica, which can be behind what this replica has from
	// another node.
	fromReplica() bool
	// open prepares a snapshot of all values; it begins with the first page. The caller closes the pages.
	open(ctx context.Context) (pages, error)
}

// Bounds of a log step.
const (
	stepBytes = 2 << 20 // entries and values, plus the rest of a commit; smaller on a slow link
	stepLeast = 16 << 10
)

// redisSource reads from the Redis node that holds the shard.
type redisSource struct {
	redis     *redisnode.Finder
	keys      protocol.Keys
	meanValue atomic.Int64 // mean size of a value in the pages so far, in bytes; 0 before the first page
	scanRate  atomic.Int64 // most keys that a snapshot reads in a second; 0 means no bound
	waited    atomic.Int64 // time for which the last snapshot has waited because of that, in nanoseconds
	pageLimit byteBound    // size of a page's values, in bytes; grows after a successful snapshot
}

func newRedisSource(f *redisnode.Finder, k protocol.Keys) *redisSource {
	return &redisSource{redis: f, keys: k, pageLimit: byteBound{least: pageLeast, most: pageBytes}}
}

func (s *redisSource) fetchStep(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return protocol.LogStep{}, err
	}
	return s.stepOn(ctx, n, n.Client, q)
}

func (s *redisSource) fetchNewest(ctx context.Context, q protocol.Query) (protocol.LogStep, error) {
	n, err := s.redis.Node(ctx)
	if err != nil {
		return protocol.LogStep{}, err
	}
	primary, err := s.redis.Primary(ctx, n)
	if err != nil {
		return protocol.LogStep{}, err
	}
	return s.stepOn(ctx, n, primary, q)
}

// stepOn runs a log step on n, or on the primary of n.
func (s *redisSource) stepOn(ctx context.Context, n *redisnode.Node, on *redis.Client, q protocol.Query) (protocol.LogStep, error) {
	st, err := protocol.FetchStep(ctx, on, s.keys, q)
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

// poolConns is the number of pooled connections that a replica holds at the same time: one for log steps, one for the
// SCAN of a snapshot, and one for each page that is read.
const poolConns = 1 + 1 + pageReads

// checkPool reports a pool that is too small: every snapshot would fail, because it waits for a connection while it holds
// the others.
func checkPool(f *redisnode.Finder) error {
	if size := f.PoolSize(); size < poolConns {
		return fmt.Errorf("a pool of %d Redis connections: a replica needs %d, set PoolSize", size, poolConns)
	}
	return nil
}
