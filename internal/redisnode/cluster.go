package redisnode

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// cluster finds the servers of the shard that owns a key. It queries every known node for its slot map and
// takes the owner that most of them report, because a node cut off from the others still reports the old
// owner.
type cluster struct {
	cfg     *Config
	clients *clients
	known   []string // addresses of the seeds and of the nodes in the last slot maps
}

func newCluster(cfg *Config) *cluster {
	return &cluster{cfg: cfg, known: slices.Clone(cfg.Addrs), clients: newClients(func(addr string) *redis.Options {
		return cfg.options(addr, host(addr))
	})}
}

func (s *cluster) candidates(ctx context.Context) ([]candidate, error) {
	slot := Slot(s.cfg.Key)
	maps, err := askAll(ctx, s.known, s.ask)
	votes := make(map[string]int)
	seen := slices.Clone(s.cfg.Addrs)
	most := 0
	for _, shards := range maps {
		for _, shard := range shards {
			for i, n := range shard.Nodes {
				if !slices.Contains(seen, n.Addr) {
					seen = append(seen, n.Addr)
				}
				owner := i == 0
				if s.cfg.ReadFrom == Replica {
					owner = i > 0 || len(shard.Nodes) == 1 // the primary if the shard has no Redis replica
				}
				if shard.Start <= slot && slot <= shard.End && owner {
					votes[n.Addr]++
					most = max(most, votes[n.Addr])
				}
			}
		}
	}
	if most == 0 {
		return nil, fmt.Errorf("no cluster node reports an owner of slot %d: %w", slot, err)
	}
	s.clients.closeExcept(seen)
	s.known = seen
	var found []candidate
	for _, addr := range seen {
		if votes[addr] == most {
			found = append(found, candidate{addr: addr, name: host(addr)})
		}
	}
	return found, nil
}

func (s *cluster) ask(ctx context.Context, addr string) ([]redis.ClusterSlot, error) {
	return AskCluster(ctx, s.clients.get(addr), addr)
}

// AskCluster returns the slot map of the node at addr: ranges of slots, each with its owner as the first
// node. It blocks until the reply arrives or ctx is done.
func AskCluster(ctx context.Context, c *redis.Client, addr string) ([]redis.ClusterSlot, error) {
	cmd := redis.NewClusterSlotsCmd(ctx, "cluster", "slots") // CLUSTER SHARDS requires Redis 7
	if err := c.Process(ctx, cmd); err != nil {
		return nil, err
	}
	shards := cmd.Val()
	for _, shard := range shards {
		for i := range shard.Nodes {
			// A node that has not learned its own address yet reports an empty host.
			if h, port, err := net.SplitHostPort(shard.Nodes[i].Addr); err == nil && h == "" {
				shard.Nodes[i].Addr = net.JoinHostPort(host(addr), port)
			}
		}
	}
	return shards, nil
}

func (s *cluster) close() { s.clients.closeExcept(nil) }

// Slot returns the hash slot of a key as the Redis Cluster specification defines it: the CRC16 (XMODEM) of
// the hash tag, or of the whole key if it has none, modulo 16384.
func Slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}
