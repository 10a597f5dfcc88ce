package redisnode

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// sentinels is the source for a primary that Sentinels monitor. It queries all of them and takes the answer
// with the highest configuration epoch, because a Sentinel cut off from the others still reports the old
// primary.
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
		return nil, fmt.Errorf("no Sentinel reports the primary %q: %w", s.cfg.MasterName, err)
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
	// No Redis replica is usable, or a primary is required.
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

func (s *sentinels) close() { s.clients.closeExcept(nil) }

// SentinelView is the state of a primary as one Sentinel reports it.
type SentinelView struct {
	Epoch          int64  // configuration epoch; the highest one is the newest configuration
	Primary        string // address of the primary
	Down           bool   // the Sentinel cannot reach the primary
	FailingOver    bool   // a failover is in progress
	OtherSentinels int    // number of other Sentinels that it has discovered
	Replicas       []ReplicaView
}

// ReplicaView is the state of a Redis replica as one Sentinel reports it.
type ReplicaView struct {
	Addr       string
	Reached    bool // the Sentinel can reach it
	InfoSeen   bool // the Sentinel has received its INFO; the fields below are unset before that
	Role       Role
	LinkUp     bool // its link to the primary is up
	Promotable bool // its priority allows a promotion
}

// AskSentinel queries a Sentinel for the primary masterName and leaves SentinelView.Replicas empty. It
// blocks until the replies arrive or ctx is done.
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
	// At the end of a failover this command reports the promoted server before SENTINEL MASTER does.
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

// AskReplicas queries a Sentinel for the Redis replicas of the primary masterName. It blocks until the reply
// arrives or ctx is done.
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
