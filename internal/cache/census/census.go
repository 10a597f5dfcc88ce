// Package census reads the key counts and counters of a Redis server. They show losses of values that no write caused.
package census

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"heavy-read-api/internal/redisnode"
)

// Census is a server's key counts, and its counters of the keys that it removed without a write.
type Census struct {
	Run      string // id of the server's process; the counters start at 0 in each
	policy   string // maxmemory-policy
	Evicted  uint64 // number of keys evicted since the process started
	Expired  uint64 // number of keys expired since the process started
	Keys     int64  // number of keys in the selected database, including those of other programs
	Expiring int64  // number of those keys that have an expiry
}

// Take reads the census of a server. It blocks at most until ctx is done.
func Take(ctx context.Context, n *redisnode.Node) (c Census, err error) {
	info, err := n.Info(ctx, "everything").Result()
	if err != nil {
		return c, err
	}
	fields := redisnode.ParseInfo(info)
	if c.Run, c.policy = fields["run_id"], fields["maxmemory_policy"]; c.Run == "" || c.policy == "" {
		return c, errors.New("INFO has no run_id or no maxmemory_policy")
	}
	c.Evicted, _ = strconv.ParseUint(fields["evicted_keys"], 10, 64)
	c.Expired, _ = strconv.ParseUint(fields["expired_keys"], 10, 64)
	// INFO has no line for a database without keys.
	for field := range strings.SplitSeq(fields[fmt.Sprint("db", n.Options().DB)], ",") {
		name, value, _ := strings.Cut(field, "=")
		count, _ := strconv.ParseInt(value, 10, 64)
		switch name {
		case "keys":
			c.Keys = count
		case "expires":
			c.Expiring = count
		}
	}
	return c, nil
}

// Hazards describes the settings with which the server removes values without a write. Readers do not see such removals.
func (c *Census) Hazards() []string {
	if c.policy == "noeviction" || c.policy == "" {
		return nil
	}
	return []string{fmt.Sprintf("Redis deletes posts by itself when its memory is full (maxmemory-policy %s): set maxmemory-policy noeviction", c.policy)}
}
