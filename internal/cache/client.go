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
