package redisnode

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Replication is the replication state that a server reports.
type Replication struct {
	Role     Role
	Upstream string        // address of the server that a Redis replica replicates
	LinkUp   bool          // master_link_status is up; a link that was cut silently stays up until a timeout
	Silence  time.Duration // time since the last data from Upstream, in whole seconds

	History string // replication id
	Offset  int64  // replication offset, in bytes
	// Replicas counts the connected Redis replicas of a primary. GoodReplicas counts those that qualify for
	// min-replicas-to-write; -1 if that is not configured.
	Replicas, GoodReplicas int
}

// AskReplication queries a server with INFO replication. It blocks until the reply arrives or ctx is done. A
// server without that section, such as the embedded Redis, counts as a primary.
func AskReplication(ctx context.Context, c *redis.Client) (Replication, error) {
	info, err := c.Info(ctx, "replication").Result()
	if err != nil && !strings.Contains(err.Error(), "is not supported") {
		return Replication{}, err
	}
	return ParseReplication(info), nil
}

// ParseReplication parses the replication section in the reply of INFO.
func ParseReplication(info string) Replication {
	fields := ParseInfo(info)
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(fields[key], 10, 64)
		return n
	}
	r := Replication{Role: Primary, History: fields["master_replid"], GoodReplicas: -1}
	if fields["role"] == "slave" {
		r.Role = Replica
		r.Upstream = net.JoinHostPort(fields["master_host"], fields["master_port"])
		r.LinkUp = fields["master_link_status"] == "up"
		r.Silence = time.Duration(max(number("master_last_io_seconds_ago"), 0)) * time.Second // -1 when the link is down
		r.Offset = number("slave_repl_offset")
		return r
	}
	r.Offset, r.Replicas = number("master_repl_offset"), int(number("connected_slaves"))
	if fields["min_slaves_good_slaves"] != "" {
		r.GoodReplicas = int(number("min_slaves_good_slaves"))
	}
	return r
}

// maxSilence is the longest silence of a replication link before its data counts as stale. A primary pings
// its Redis replicas every repl-ping-replica-period, which must be 1 s where readers use Redis replicas.
const maxSilence = 2 * time.Second

// maxHops bounds the length of a chain of Redis replicas.
const maxHops = 8

// CheckFresh returns nil if n holds the current data of its primary, else the reason why it may be stale.
// For a Redis replica it verifies every link of the chain, because a server in the middle reports its own
// link as up while the link above it is cut. It leaves n if n must be a primary and is not. CheckFresh
// blocks until all servers of the chain have answered or ctx is done.
func (f *Finder) CheckFresh(ctx context.Context, n *Node) error {
	_, err := f.climb(ctx, n, func(at string, r *Replication) error {
		switch {
		case !r.LinkUp:
			return fmt.Errorf("the link of the Redis replica %s to %s is down", at, r.Upstream)
		case r.Silence >= maxSilence:
			return fmt.Errorf("the link of the Redis replica %s to %s has been silent for %v", at, r.Upstream, r.Silence)
		}
		return nil
	})
	return err
}

// Primary returns a client of the primary that n replicates, or of n if n is a primary, after that server has
// confirmed its role. It leaves n if n must be a primary and is not. Primary blocks until all servers of the chain
// have answered or ctx is done. The Finder owns the client, and may close it when the chain changes.
func (f *Finder) Primary(ctx context.Context, n *Node) (*redis.Client, error) {
	return f.climb(ctx, n, func(string, *Replication) error { return nil })
}

// climb follows the chain of Redis replicas from n to the primary, of which it returns a client. check may reject a
// link.
func (f *Finder) climb(ctx context.Context, n *Node, check func(at string, r *Replication) error) (*redis.Client, error) {
	r, err := f.checkRole(ctx, n)
	if err != nil {
		return nil, err
	}
	top := n.Client
	var chain []string
	for at := n.Addr; r.Role == Replica; {
		if err := check(at, &r); err != nil {
			return nil, err
		}
		if len(chain) == maxHops {
			return nil, fmt.Errorf("%s is at the end of a chain of more than %d Redis replicas", n.Addr, maxHops)
		}
		at = r.Upstream
		chain = append(chain, at)
		top = f.chain.get(at)
		if r, err = AskReplication(ctx, top); err != nil {
			return nil, fmt.Errorf("query %s, the upstream of the Redis replica: %w", at, err)
		}
	}
	f.chain.closeExcept(chain)
	return top, nil
}

// CheckRole returns an error, and leaves n, if n does not have the required role any more. It blocks until
// the server has answered or ctx is done.
func (f *Finder) CheckRole(ctx context.Context, n *Node) error {
	_, err := f.checkRole(ctx, n)
	return err
}

func (f *Finder) checkRole(ctx context.Context, n *Node) (Replication, error) {
	r, err := AskReplication(ctx, n.Client)
	if err != nil {
		f.ReportError(n, err)
		return r, err
	}
	if last := n.info.Load(); last != nil {
		n.info.Store(&serverInfo{last.product, r})
	}
	if err := f.roleError(r); err != nil {
		f.Leave(n, err)
		return r, err
	}
	return r, nil
}

// roleError returns an error if r is not the required role.
func (f *Finder) roleError(r Replication) error {
	if f.cfg.ReadFrom == Primary && r.Role != Primary {
		return fmt.Errorf("%w: it replicates %s", ErrNotPrimary, r.Upstream)
	}
	return nil
}

// PoolSize returns the limit of connections to the server, not counting subscriptions.
func (f *Finder) PoolSize() int { return f.cfg.PoolSize }

// ReadsFrom returns Config.ReadFrom.
func (f *Finder) ReadsFrom() Role { return f.cfg.ReadFrom }
