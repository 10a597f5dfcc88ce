package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"heavy-read-api/internal/redisnode"
)

// census holds a server's key counts, and its counters of the keys that it removed by itself.
type census struct {
	run     string // of the server's process; counters begin at 0 with each
	policy  string // maxmemory-policy
	evicted uint64 // number of keys evicted since the process started
	expired uint64 // number of keys expired since the process started
	keys    int64  // number of keys in the selected database, including those of other programs
	expire  int64  // number of keys in it that have an expiry
}

// takeCensus asks a server. It blocks until ctx is done at most.
func takeCensus(ctx context.Context, n *redisnode.Node) (c census, err error) {
	info, err := n.Info(ctx, "everything").Result()
	if err != nil {
		return c, err
	}
	fields := redisnode.ParseInfo(info)
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

// hazards describes the settings that make the server remove values without a write, which readers do not
// notice.
func (c *census) hazards() []string {
	if c.policy == "noeviction" || c.policy == "" {
		return nil
	}
	return []string{fmt.Sprintf("Redis deletes posts by itself when its memory is full (maxmemory-policy %s): set maxmemory-policy noeviction", c.policy)}
}
