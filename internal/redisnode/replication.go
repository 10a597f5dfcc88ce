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

// replication is what a server says about its replication.
type replication struct {
	Role     Role
	Upstream string        // address of the server that a Redis replica replicates
	LinkUp   bool          // the link to Upstream works, as far as the server has noticed
	Silence  time.Duration // since Upstream was heard, in whole seconds
}

// replicationOf asks a server. It blocks until ctx is done at most. A server without that section,
// such as the embedded one, counts as a primary.
func replicationOf(ctx context.Context, c *redis.Client) (replication, error) {
	info, err := c.Info(ctx, "replication").Result()
	if err != nil {
		if strings.Contains(err.Error(), "is not supported") {
			return replication{Role: Primary}, nil
		}
		return replication{}, err
	}
	return parseReplication(info), nil
}

func parseReplication(info string) replication {
	r := replication{Role: Primary}
	var host, port string
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "role":
			if value == "slave" {
				r.Role = Replica
			}
		case "master_host":
			host = value
		case "master_port":
			port = value
		case "master_link_status":
			r.LinkUp = value == "up"
		case "master_last_io_seconds_ago":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				r.Silence = time.Duration(n) * time.Second
			}
		}
	}
	if r.Role == Replica {
		r.Upstream = net.JoinHostPort(host, port)
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
func (f *Finder) Current(ctx context.Context, n *Node) error {
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
		if r, err = replicationOf(ctx, f.chain.get(at)); err != nil {
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

func (f *Finder) checkRole(ctx context.Context, n *Node) (replication, error) {
	r, err := replicationOf(ctx, n.Client)
	if err != nil {
		f.Doubt(n, err)
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
func (f *Finder) roleError(r replication) error {
	if f.cfg.ReadFrom == Primary && r.Role != Primary {
		return fmt.Errorf("%w: it replicates %s", ErrNotPrimary, r.Upstream)
	}
	return nil
}

// PoolSize returns the most connections to the server, subscriptions not counted.
func (f *Finder) PoolSize() int { return f.cfg.PoolSize }

// ReadsFrom returns the role that the node has to have.
func (f *Finder) ReadsFrom() Role { return f.cfg.ReadFrom }
