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

// Replication is what a server says about its replication.
type Replication struct {
	Role     Role
	Upstream string        // address of the server that a Redis replica replicates
	LinkUp   bool          // the link to Upstream works, as far as the server has noticed
	Silence  time.Duration // since Upstream was heard, in whole seconds

	History string // id of the history of writes that the server has
	Offset  int64  // bytes of that history that it has
	// Of a primary: Redis replicas that are connected, and those that count for min-replicas-to-write,
	// -1 when none is required.
	Replicas, GoodReplicas int
}

// AskReplication asks a server. It blocks until ctx is done at most. A server without that section,
// such as the embedded one, counts as a primary.
func AskReplication(ctx context.Context, c *redis.Client) (Replication, error) {
	info, err := c.Info(ctx, "replication").Result()
	if err != nil && !strings.Contains(err.Error(), "is not supported") {
		return Replication{}, err
	}
	return ParseReplication(info), nil
}

// ParseReplication reads the answer to INFO, of which it takes the section on replication.
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

// maxSilence is how long a link may be silent before what comes over it counts as stale. A primary
// pings its Redis replicas every repl-ping-replica-period, which has to be 1 s then.
const maxSilence = 2 * time.Second

// maxHops bounds a chain of Redis replicas.
const maxHops = 8

// Current reports why what n holds may be older than what its primary holds; nil when it is not. For
// a Redis replica every link up the chain has to work, because one in the middle says that its link
// is up while the one above it is cut. A node that has to be a primary and is not is left at once.
// Current blocks until ctx is done at most.
func (f *Finder) CheckFresh(ctx context.Context, n *Node) error {
	r, err := f.checkRole(ctx, n)
	if err != nil {
		return err
	}
	var chain []string
	for at := n.Addr; r.Role == Replica; {
		switch {
		case !r.LinkUp:
			return fmt.Errorf("the link of the Redis replica %s to %s is down", at, r.Upstream)
		case r.Silence >= maxSilence:
			return fmt.Errorf("the link of the Redis replica %s to %s is silent since %v", at, r.Upstream, r.Silence)
		case len(chain) == maxHops:
			return fmt.Errorf("%s is behind more than %d Redis replicas", n.Addr, maxHops)
		}
		at = r.Upstream
		chain = append(chain, at)
		if r, err = AskReplication(ctx, f.chain.get(at)); err != nil {
			return fmt.Errorf("ask %s, which the Redis replica follows: %w", at, err)
		}
	}
	f.chain.keep(chain)
	return nil
}

// CheckRole reports whether n still has the role that it has to have; a node that has not is left at
// once. CheckRole blocks until ctx is done at most.
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
	if last := n.seen.Load(); last != nil {
		n.seen.Store(&seen{last.product, r})
	}
	if err := f.roleError(r); err != nil {
		f.Leave(n, err)
		return r, err
	}
	return r, nil
}

// roleError reports a role that the node must not have.
func (f *Finder) roleError(r Replication) error {
	if f.cfg.ReadFrom == Primary && r.Role != Primary {
		return fmt.Errorf("%w: it replicates %s", ErrNotPrimary, r.Upstream)
	}
	return nil
}

// PoolSize returns the most connections to the server, subscriptions not counted.
func (f *Finder) PoolSize() int { return f.cfg.PoolSize }

// ReadsFrom returns the role that the node has to have.
func (f *Finder) ReadsFrom() Role { return f.cfg.ReadFrom }
