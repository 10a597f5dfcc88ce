package redisnode

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// sentinels is the source for a primary that Sentinels watch. All are asked, and the newest
// configuration wins: a Sentinel that was cut off from the others still names the old primary.
type sentinels struct {
	cfg     *Config
	clients *clients
}

func newSentinels(cfg *Config) *sentinels {
	return &sentinels{cfg: cfg, clients: newClients(func(addr string) *redis.Options {
		o := cfg.options(addr, host(addr))
		o.Username, o.Password, o.DB = cfg.SentinelUsername, cfg.SentinelPassword, 0
		return o
	})}
}

func (s *sentinels) candidates(ctx context.Context) ([]candidate, error) {
	opinions, err := askAll(ctx, s.cfg.Addrs, s.ask)
	if len(opinions) == 0 {
		return nil, fmt.Errorf("no Sentinel names the primary %q: %w", s.cfg.MasterName, err)
	}
	newest := opinions[0].Epoch
	for _, o := range opinions {
		newest = max(newest, o.Epoch)
	}
	var found []candidate
	add := func(addr string) {
		for _, c := range found {
			if c.addr == addr {
				return
			}
		}
		found = append(found, candidate{addr: addr, name: host(addr)})
	}
	for _, o := range opinions {
		if o.Epoch == newest {
			for _, r := range o.Replicas {
				if r.Reached && r.LinkUp {
					add(r.Addr)
				}
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	// Reading from Redis replicas, the primary is better than nothing.
	for _, o := range opinions {
		if o.Epoch == newest {
			add(o.Primary)
		}
	}
	return found, nil
}

func (s *sentinels) ask(ctx context.Context, addr string) (SentinelView, error) {
	v, err := AskSentinel(ctx, s.clients.get(addr), s.cfg.MasterName)
	if err == nil && s.cfg.ReadFrom == Replica {
		v.Replicas, err = AskReplicas(ctx, s.clients.get(addr), s.cfg.MasterName)
	}
	return v, err
}

func (s *sentinels) close() { s.clients.keep(nil) }

// SentinelView is what a Sentinel says about the primary that it watches.
type SentinelView struct {
	Epoch          int64  // of the configuration that names the primary
	Primary        string // address
	Down           bool   // the Sentinel does not reach the primary
	FailingOver    bool   // the primary is being replaced
	OtherSentinels int    // other Sentinels that it knows
	Replicas       []ReplicaView
}

// ReplicaView is a Redis replica as a Sentinel sees it.
type ReplicaView struct {
	Addr       string
	Reached    bool // the Sentinel reaches it
	InfoSeen   bool // the Sentinel has seen its state, which the rest is
	Role       Role
	LinkUp     bool // to its primary
	Promotable bool // it may be promoted
}

// AskSentinel asks a Sentinel for a primary, without its Redis replicas. It blocks until ctx is done at
// most.
func AskSentinel(ctx context.Context, c *redis.Client, masterName string) (v SentinelView, err error) {
	cmd := redis.NewMapStringStringCmd(ctx, "sentinel", "master", masterName)
	if err := c.Process(ctx, cmd); err != nil {
		return v, err
	}
	master := cmd.Val()
	if v.Epoch, err = strconv.ParseInt(master["config-epoch"], 10, 64); err != nil {
		return v, fmt.Errorf("configuration epoch: %w", err)
	}
	v.Down, v.FailingOver = strings.Contains(master["flags"], "down"), strings.Contains(master["flags"], "failover")
	v.OtherSentinels, _ = strconv.Atoi(master["num-other-sentinels"])
	// While a failover ends, this names the promoted server before SENTINEL MASTER does.
	primary := redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", masterName)
	if err := c.Process(ctx, primary); err != nil {
		return v, err
	}
	if len(primary.Val()) != 2 {
		return v, fmt.Errorf("address of the primary: %q", primary.Val())
	}
	v.Primary = net.JoinHostPort(primary.Val()[0], primary.Val()[1])
	return v, nil
}

// AskReplicas asks a Sentinel for the Redis replicas of a primary. It blocks until ctx is done at most.
func AskReplicas(ctx context.Context, c *redis.Client, masterName string) ([]ReplicaView, error) {
	cmd := redis.NewMapStringStringSliceCmd(ctx, "sentinel", "replicas", masterName)
	if err := c.Process(ctx, cmd); err != nil {
		return nil, err
	}
	var replicas []ReplicaView
	for _, r := range cmd.Val() {
		v := ReplicaView{
			Addr:       net.JoinHostPort(r["ip"], r["port"]),
			Reached:    !strings.Contains(r["flags"], "down") && !strings.Contains(r["flags"], "disconnected"),
			InfoSeen:   r["info-refresh"] != "0",
			Role:       Replica,
			LinkUp:     r["master-link-status"] == "ok",
			Promotable: r["slave-priority"] != "0",
		}
		if r["role-reported"] == "master" {
			v.Role = Primary
		}
		replicas = append(replicas, v)
	}
	return replicas, nil
}
