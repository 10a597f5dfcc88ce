package census

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"heavy-read-api/internal/redisnode"
)

// Census holds a server's key counts, and its counters of the keys that it removed by itself.
type Census struct {
	Run      string // of the server's process; counters begin at 0 with each
	Policy   string // maxmemory-policy
	Evicted  uint64 // number of keys evicted since the process started
	Expired  uint64 // number of keys expired since the process started
	Keys     int64  // number of keys in the selected database, including those of other programs
	Expiring int64  // number of keys in it that have an expiry
}

// Take asks a server. It blocks until ctx is done at most.
func Take(ctx context.Context, n *redisnode.Node) (c Census, err error) {
	info, err := n.Info(ctx, "everything").Result()
	if err != nil {
		return c, err
	}
	fields := redisnode.ParseInfo(info)
	if c.Run, c.Policy = fields["run_id"], fields["maxmemory_policy"]; c.Run == "" || c.Policy == "" {
		return c, fmt.Errorf("INFO has no run_id or no maxmemory_policy")
	}
	c.Evicted, _ = strconv.ParseUint(fields["evicted_keys"], 10, 64)
	c.Expired, _ = strconv.ParseUint(fields["expired_keys"], 10, 64)
	// A database without keys has no line.
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

// Hazards describes the settings that make the server remove values without a write, which readers do not
// notice.
func (c *Census) Hazards() []string {
	if c.Policy == "noeviction" || c.Policy == "" {
		return nil
	}
	return []string{fmt.Sprintf("Redis deletes posts by itself when its memory is full (maxmemory-policy %s): set maxmemory-policy noeviction", c.Policy)}
}
