package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"heavy-read-api/internal/redisnode"
)

// census is what a server says about the keys that it has and about those that it has dropped by itself.
type census struct {
	run     string // of the server's process; counters begin at 0 with each
	policy  string // maxmemory-policy
	evicted uint64 // keys, since the run began
	expired uint64 // the same
	keys    int64  // in the database that is used, of whoever
	expire  int64  // of those: will expire
}

// takeCensus asks a server. It blocks until ctx is done at most.
func takeCensus(ctx context.Context, n *redisnode.Node) (c census, err error) {
	info, err := n.Info(ctx, "everything").Result()
	if err != nil {
		return c, err
	}
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	if c.run, c.policy = fields["run_id"], fields["maxmemory_policy"]; c.run == "" || c.policy == "" {
		return c, fmt.Errorf("INFO has no run_id or no maxmemory_policy")
	}
	c.evicted, _ = strconv.ParseUint(fields["evicted_keys"], 10, 64)
	c.expired, _ = strconv.ParseUint(fields["expired_keys"], 10, 64)
	// A database without keys has no line.
	for field := range strings.SplitSeq(fields[fmt.Sprint("db", n.Options().DB)], ",") {
		name, value, _ := strings.Cut(field, "=")
		count, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "keys":
			c.keys = count
		case "expires":
			c.expire = count
		}
	}
	return c, nil
}

// hazards says by which settings the server loses values without a write, of which no reader learns.
func (c *census) hazards() []string {
	if c.policy == "noeviction" || c.policy == "" {
		return nil
	}
	return []string{fmt.Sprintf("Redis deletes posts by itself when its memory is full (maxmemory-policy %s): set maxmemory-policy noeviction", c.policy)}
}
