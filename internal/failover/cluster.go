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

// handOverWait bounds a failover in a cluster. The Redis replica aborts it after 5 s.
const handOverWait = 6 * time.Second

// inCluster promotes a Redis replica of the shard that owns the posts, with CLUSTER FAILOVER. That command
// loses no write: the primary blocks writes until the Redis replica has caught up and taken over.
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
	o.report("Failing over from %s, which owns the posts, to %s.", o.cfg.Name(old), o.cfg.Name(promoted))
	c, err := o.servers.redis(ctx, promoted)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.ClusterFailover(ctx).Err(); refused(err) {
		return fmt.Errorf("%s refuses the failover: %w", o.cfg.Name(promoted), err)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), handOverWait)
	defer cancel()
	for _, node := range nodes {
		err := await(ctx, func() error {
			addrs, err := o.shardSeenBy(ctx, node)
			if err == nil && addrs[0] != promoted {
				err = fmt.Errorf("%s still reports %s as the owner after %s: either %s has aborted the failover, or %s cannot reach it", o.cfg.Name(node), o.cfg.Name(addrs[0]), handOverWait, o.cfg.Name(promoted), o.cfg.Name(node))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	o.report("%s is the primary of the posts, and all nodes report it. Writes were out for %s at most; none was lost.", o.cfg.Name(promoted), seconds(time.Since(began)))
	return nil
}

// successor returns the address of the primary that owns the posts, the addresses of all nodes that answer,
// and the address of the Redis replica to promote: the one with the highest replication offset among those
// that every node lists.
func (o *operation) successor(ctx context.Context) (primary string, nodes []string, promoted string, err error) {
	var replicas []string
	var failed error
	for _, node := range o.cfg.Addr {
		shard, err := o.shardSeenBy(ctx, node)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", o.cfg.Name(node), err))
			continue
		case nodes == nil:
			primary, replicas = shard[0], shard[1:]
		case primary != shard[0]:
			return "", nil, "", fmt.Errorf("the nodes disagree on the owner of the posts: %s reports %s, %s reports %s", o.cfg.Name(nodes[0]), o.cfg.Name(primary), o.cfg.Name(node), o.cfg.Name(shard[0]))
		}
		replicas = slices.DeleteFunc(replicas, func(r string) bool { return !slices.Contains(shard[1:], r) })
		nodes = append(nodes, node)
	}
	if nodes == nil {
		return "", nil, "", fmt.Errorf("no cluster node reports the owner of the posts: %w", failed)
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
		return "", nil, "", errors.Join(fmt.Errorf("there is nothing to fail over to: no Redis replica of %s is connected and listed by every node", o.cfg.Name(primary)), reasons)
	}
	return primary, nodes, promoted, nil
}

// shardSeenBy queries a node for the shard that owns the posts and returns the addresses of its servers, the
// primary first.
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
