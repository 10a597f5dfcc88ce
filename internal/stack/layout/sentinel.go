package layout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// The layout REDIS=sentinel.
const (
	sentinelServers = 3       // one of them the primary
	sentinels       = 3       // two of them decide
	masterName      = "posts" // name of the primary at the Sentinels
)

// replaceWait bounds how long a primary that died stays down until another server has been promoted. A failover
// takes 3 s until the primary counts as down, and 1 to 2 s more.
const replaceWait = 10 * time.Second

// heldBack is logged when the start of a server is delayed for a promotion.
const heldBack = "the primary died; it stays down until another server has been promoted"

// sentinelSettings is the content of a new sentinel.conf. Sentinel rewrites the file at every change, so later
// only the password is set.
//
// A primary that does not answer for 3 s counts as down: Sentinel pings once a second, and with 1 s a single late
// reply caused a second failover. failover-timeout bounds each phase of a failover, and a failed failover is
// retried after twice that time: 6 minutes with the default of 180 s, 20 s with 10 s, which still is several
// times the length of a promotion.
const sentinelSettings = `sentinel monitor %[1]s %[2]s %[3]s 2
sentinel down-after-milliseconds %[1]s 3000
sentinel failover-timeout %[1]s 10000
sentinel parallel-syncs %[1]s 1
`

// sentinelGroup is a primary, its Redis replicas and the Sentinels that watch them.
type sentinelGroup struct {
	servers, sentinels []peer
	dir                string // holds a folder for each of them
	minReplicas        int    // connected Redis replicas without which the primary refuses writes
	password           string // password of servers and Sentinels
	log                *slog.Logger
	views              shared[groupView]
}

// sentinelStages returns the stages of REDIS=sentinel.
func (c *Config) sentinelStages() ([]Stage, string, error) {
	g := &sentinelGroup{
		servers:   peers(state.Redis, c.RedisPort, sentinelServers),
		sentinels: peers(state.Sentinel, c.SentinelPort, sentinels),
		dir:       c.redisDir(), minReplicas: c.MinReplicas, password: c.Password, log: c.Logger,
	}
	primary := g.remembered()
	if primary == "" {
		primary = g.servers[0].addr
	}
	if !slices.Contains(addresses(g.servers), primary) {
		return nil, "", fmt.Errorf("the Sentinels' files in %s have the primary at %s: set REDIS_PORT as it was, or delete that folder with its posts (make clean)", g.dir, primary)
	}
	// The Sentinels start after the Redis replicas have found the primary: otherwise they would discover them
	// 10 s later.
	servers, watchers := Stage{}, Stage{}
	for i, p := range g.servers {
		s, err := c.sentinelServer(g, p, supervisor.Port{Number: c.RedisPort + i, Env: "REDIS_PORT"})
		if err != nil {
			return nil, "", err
		}
		servers.Specs = append(servers.Specs, s)
	}
	for i, p := range g.sentinels {
		s, err := c.sentinel(g, p, supervisor.Port{Number: c.SentinelPort + i, Env: "SENTINEL_PORT"}, primary)
		if err != nil {
			return nil, "", err
		}
		watchers.Specs = append(watchers.Specs, s)
	}
	what := fmt.Sprintf("%d servers and %d Sentinels, append-only files in %s; the primary was %s", sentinelServers, sentinels, g.dir, nameOf(g.servers, primary))
	return []Stage{servers, watchers}, what, nil
}

func (c *Config) sentinelServer(g *sentinelGroup, p peer, at supervisor.Port) (supervisor.Spec, error) {
	dir := filepath.Join(g.dir, p.name)
	s, err := c.redisServer(p.name, dir, at,
		"--repl-ping-replica-period", "1", // a Redis replica detects a dead link within 2 s
		"--repl-diskless-sync-delay", "0", // by default the first full synchronization waits 5 s for more Redis replicas
		"--repl-backlog-size", "64mb", // no full synchronization after an outage of seconds
		// A primary that lost all of its Redis replicas refuses writes after 2 s, so one that was cut off and replaced
		// loses 2 s of writes at most. The price: while both Redis replicas are down, the primary refuses all writes.
		"--min-replicas-to-write", strconv.Itoa(c.MinReplicas), "--min-replicas-max-lag", "2",
	)
	if err != nil {
		return s, err
	}
	s.Check = func(ctx context.Context) state.Health { return g.view().server(p) }
	configured := s.Prepare
	s.Prepare = func(ctx context.Context) ([]string, error) {
		role := g.replicaOf(ctx, p)
		_, err := configured(ctx)
		return role, err
	}
	return s, nil
}

func (c *Config) sentinel(g *sentinelGroup, p peer, at supervisor.Port, primary string) (supervisor.Spec, error) {
	dir := filepath.Join(g.dir, p.name)
	s, err := c.redisProcess(state.Sentinel, p.name, at)
	if err != nil {
		return s, err
	}
	primaryHost, primaryPort, err := net.SplitHostPort(primary)
	if err != nil {
		return s, err
	}
	conf := filepath.Join(dir, sentinelConf)
	s.Argv = append(s.Argv, conf, "--sentinel", "--port", strconv.Itoa(at.Number), "--bind", supervisor.Host, "--dir", dir,
		"--daemonize", "no", "--logfile", "")
	s.Check = func(ctx context.Context) state.Health { return g.view().sentinel(p) }
	s.Prepare = func(context.Context) ([]string, error) {
		return nil, configure(conf, fmt.Sprintf(sentinelSettings, masterName, primaryHost, primaryPort),
			c.Password, "requirepass %q", "sentinel auth-pass "+masterName+" %q")
	}
	return s, nil
}

const sentinelConf = "sentinel.conf"

// replicaOf returns the arguments that start a server in the role that the Sentinels have for it, so that an old
// primary accepts no write before they turn it into a Redis replica.
//
// A primary that died is replaced rather than restarted: with many posts a restart takes longer than a failover, and the
// fault may occur again. So replicaOf blocks until the Sentinels have promoted another server, if they can, but at most
// for replaceWait or until ctx is done.
func (g *sentinelGroup) replicaOf(ctx context.Context, self peer) []string {
	l := g.view()
	primary := l.primary
	if primary == self.addr && l.canReplace(self) {
		g.log.Info(heldBack, "process", self.name, "at_most", replaceWait)
		wait, cancel := context.WithTimeout(ctx, replaceWait)
		defer cancel()
		poll.Until(wait, func() bool {
			if l := g.view(); l.primary != "" {
				primary = l.primary
			}
			return primary != self.addr
		})
	}
	if primary == "" {
		primary = g.remembered() // no Sentinel answers
	}
	if primary == "" {
		primary = g.servers[0].addr
	}
	if primary == self.addr {
		return []string{"--replicaof", "no", "one"}
	}
	primaryHost, primaryPort, _ := net.SplitHostPort(primary)
	return []string{"--replicaof", primaryHost, primaryPort}
}

// remembered returns the address of the primary in the newest of the Sentinels' files, "" when there is none.
func (g *sentinelGroup) remembered() string {
	var primary string
	newest := int64(-1)
	for _, p := range g.sentinels {
		text, err := os.ReadFile(filepath.Join(g.dir, p.name, sentinelConf))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		addr, epoch := parseSentinelConf(string(text))
		if addr != "" && epoch > newest {
			primary, newest = addr, epoch
		}
	}
	return primary
}

// parseSentinelConf returns the address of the primary in a sentinel.conf, and its configuration epoch.
func parseSentinelConf(text string) (primary string, epoch int64) {
	for line := range strings.Lines(text) {
		switch f := strings.Fields(line); {
		case len(f) == 6 && f[0] == "sentinel" && f[1] == "monitor" && f[2] == masterName:
			primary = net.JoinHostPort(f[3], f[4])
		case len(f) == 4 && f[0] == "sentinel" && f[1] == "config-epoch" && f[2] == masterName:
			epoch, _ = strconv.ParseInt(f[3], 10, 64) // 0 if it is not a number
		}
	}
	return primary, epoch
}
