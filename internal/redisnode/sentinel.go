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

// opinion is what a Sentinel says.
type opinion struct {
	epoch    int64 // of the configuration
	primary  string
	replicas []string // that it can reach and that have a link to the primary
}

func (s *sentinels) candidates(ctx context.Context) ([]candidate, error) {
	opinions, err := askAll(ctx, s.cfg.Addrs, s.ask)
	if len(opinions) == 0 {
		return nil, fmt.Errorf("no Sentinel names the primary %q: %w", s.cfg.MasterName, err)
	}
	newest := opinions[0].epoch
	for _, o := range opinions {
		newest = max(newest, o.epoch)
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
		if o.epoch == newest {
			for _, addr := range o.replicas {
				add(addr)
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	// Reading from Redis replicas, the primary is better than nothing.
	for _, o := range opinions {
		if o.epoch == newest {
			add(o.primary)
		}
	}
	return found, nil
}

// ask asks one Sentinel.
func (s *sentinels) ask(ctx context.Context, addr string) (o opinion, err error) {
	c := s.clients.get(addr)
	master := redis.NewMapStringStringCmd(ctx, "sentinel", "master", s.cfg.MasterName)
	if err := c.Process(ctx, master); err != nil {
		return o, err
	}
	if o.epoch, err = strconv.ParseInt(master.Val()["config-epoch"], 10, 64); err != nil {
		return o, fmt.Errorf("configuration epoch: %w", err)
	}
	// While a failover ends, this names the promoted server before SENTINEL MASTER does.
	primary := redis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.cfg.MasterName)
	if err := c.Process(ctx, primary); err != nil {
		return o, err
	}
	if len(primary.Val()) != 2 {
		return o, fmt.Errorf("address of the primary: %q", primary.Val())
	}
	o.primary = net.JoinHostPort(primary.Val()[0], primary.Val()[1])
	if s.cfg.ReadFrom != Replica {
		return o, nil
	}
	replicas := redis.NewMapStringStringSliceCmd(ctx, "sentinel", "replicas", s.cfg.MasterName)
	if err := c.Process(ctx, replicas); err != nil {
		return o, err
	}
	for _, r := range replicas.Val() {
		if !strings.Contains(r["flags"], "down") && !strings.Contains(r["flags"], "disconnected") && r["master-link-status"] == "ok" {
			o.replicas = append(o.replicas, net.JoinHostPort(r["ip"], r["port"]))
		}
	}
	return o, nil
}

func (s *sentinels) close() { s.clients.keep(nil) }
