package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ClientOptions returns options with which a client keeps the promises of this package; the caller
// adds addresses and credentials. Several addresses are the seeds of a Redis Cluster.
//
// MaxRetries is -1 because go-redis repeats a command whose reply was lost, and a write would
// happen twice. ContextTimeoutEnabled makes contexts bound reads from the connection, which they
// do not by default. ReadOnly, RouteByLatency and RouteRandomly stay off: a lagging Redis replica
// looks like another history.
func ClientOptions(addrs ...string) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:                 addrs,
		MaxRetries:            -1,
		DisableIdentity:       true, // CLIENT SETINFO: a command more to allow in an access list, known from Redis 7.2 on
		ContextTimeoutEnabled: true,
		DialTimeout:           time.Second,
		DialerRetries:         1,
		ReadTimeout:           time.Second,
		WriteTimeout:          time.Second,
		PoolTimeout:           time.Second,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // a managed service's protocol, not ours
		},
	}
}

// Bounds of the reads that Replica.Direct sends to one Redis node.
const (
	directReads = 8                      // at a time
	directWait  = 100 * time.Millisecond // longest wait of a read for its turn
)

// DirectOptions returns o for the client that Replica.Direct reads with: its pool bounds how many reads
// run at a time and how long the others wait for a connection.
func DirectOptions(o *redis.UniversalOptions) *redis.UniversalOptions {
	direct := *o
	direct.PoolSize, direct.PoolTimeout = directReads, directWait
	return &direct
}

// replicaConns is the number of connections of its client's pool that a replica holds at the same time:
// one for the log, one for the SCAN of a snapshot, and those that read its pages.
const replicaConns = 1 + 1 + reads

// checkPool reports a client whose pool is too small for a replica: every snapshot would fail, waiting for
// a connection while it holds the others.
func checkPool(client redis.UniversalClient) error {
	size := replicaConns
	switch c := client.(type) {
	case *redis.Client:
		size = c.Options().PoolSize
	case *redis.ClusterClient:
		size = c.Options().PoolSize
	}
	if size < replicaConns {
		return fmt.Errorf("a pool of %d Redis connections: a replica needs %d, set PoolSize", size, replicaConns)
	}
	return nil
}

// node returns the client of the one Redis node that holds the shard of key: the subscription, the
// steps and the snapshot of a replica must all talk to that node.
func node(ctx context.Context, client redis.UniversalClient, key string) (*redis.Client, error) {
	switch c := client.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	default:
		return nil, fmt.Errorf("a %T spreads keys in a way that the replica cannot follow: use a *redis.Client or *redis.ClusterClient", client)
	}
}
