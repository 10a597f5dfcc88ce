package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/redisnode"
)

// handOverWait bounds a failover in a cluster. The Redis replica gives up after 5 s.
const handOverWait = 6 * time.Second

// inCluster lets a Redis replica of the shard that has the posts take over. The nodes keep every write:
// the primary stops taking them, the replica gets what it lacks, and takes over then.
func (o *operation) inCluster(ctx context.Context) error {
	var old, promoted string
	var nodes []string
	wait, cancel := context.WithTimeout(ctx, agreeWait)
	defer cancel()
	err := await(wait, func() (err error) {
		old, nodes, promoted, err = o.successor(wait)
		return err
	})
	if err != nil {
		return err
	}
	o.report("Failing over from %s, which has the posts, to %s.", o.cfg.Name(old), o.cfg.Name(promoted))
	c, err := o.servers.redis(ctx, promoted)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := c.ClusterFailover(ctx).Err(); refused(err) {
		return fmt.Errorf("%s refuses the failover: %w", o.cfg.Name(promoted), err)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), handOverWait)
	defer cancel()
	for _, node := range nodes {
		err := await(ctx, func() error {
			addrs, err := o.shardSeenBy(ctx, node)
			if err == nil && addrs[0] != promoted {
				err = fmt.Errorf("%s still names %s as the owner after %s: %s has given up, or %s cannot reach it", o.cfg.Name(node), o.cfg.Name(addrs[0]), handOverWait, o.cfg.Name(promoted), o.cfg.Name(node))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	o.report("%s is the primary of the posts, and all nodes name it. Writes were out for %s at most; none was lost.", o.cfg.Name(promoted), seconds(time.Since(begun)))
	return nil
}

// successor returns the addresses of the primary that has the posts, of all nodes that answer, and of the
// Redis replica that is to take over: one that every node knows as such, and that has most of the writes.
func (o *operation) successor(ctx context.Context) (primary string, nodes []string, promoted string, err error) {
	var replicas []string
	var silent error
	for _, node := range o.cfg.Addr {
		shard, err := o.shardSeenBy(ctx, node)
		switch {
		case err != nil:
			silent = errors.Join(silent, fmt.Errorf("%s: %w", o.cfg.Name(node), err))
			continue
		case nodes == nil:
			primary, replicas = shard[0], shard[1:]
		case primary != shard[0]:
			return "", nil, "", fmt.Errorf("the nodes do not agree on the owner of the posts: %s names %s, %s names %s", o.cfg.Name(nodes[0]), o.cfg.Name(primary), o.cfg.Name(node), o.cfg.Name(shard[0]))
		}
		replicas = slices.DeleteFunc(replicas, func(r string) bool { return !slices.Contains(shard[1:], r) })
		nodes = append(nodes, node)
	}
	if nodes == nil {
		return "", nil, "", fmt.Errorf("no node of the cluster names the owner of the posts: %w", silent)
	}
	best := int64(-1)
	var reasons error
	for _, addr := range replicas {
		if err := o.follows(ctx, addr, primary); err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		r, err := o.replication(ctx, addr)
		if err == nil && r.Offset > best {
			promoted, best = addr, r.Offset
		}
	}
	if promoted == "" {
		return "", nil, "", errors.Join(fmt.Errorf("no Redis replica of %s is connected and known to every node: there is nothing to fail over to", o.cfg.Name(primary)), reasons)
	}
	return primary, nodes, promoted, nil
}

// shardSeenBy asks one node for the shard that has the posts.
func (o *operation) shardSeenBy(ctx context.Context, node string) ([]string, error) {
	c, err := o.servers.redis(ctx, node)
	if err != nil {
		return nil, err
	}
	ranges, err := redisnode.AskCluster(ctx, c, node)
	if err != nil {
		return nil, err
	}
	slot := redisnode.Slot(o.servers.base.Key)
	i := slices.IndexFunc(ranges, func(r redis.ClusterSlot) bool { return r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 })
	if i < 0 {
		return nil, fmt.Errorf("slot %d has no owner", slot)
	}
	var addrs []string
	for _, n := range ranges[i].Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs, nil
}
