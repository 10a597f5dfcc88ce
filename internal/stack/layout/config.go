// Package layout defines the processes of the stack on one machine: their settings, ports, arguments and health
// checks, and the layouts of its Redis.
package layout

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/stack/supervisor"
)

// MaxReaders is the maximum number of readers in rotation.
const MaxReaders = 20

const maxPort = 65535

// Config holds the settings of the stack on one machine. Common.Port is the dashboard's port.
type Config struct {
	daemon.Common
	RunDir      string        // logs, pid file, nodes file, Redis's data and password
	Readers     int           // readers in rotation at the start
	RedisAddr   []string      // an existing Redis; when empty the stack starts one
	Redis       string        // layout of the stack's own Redis: single, sentinel or cluster
	RedisServer string        // program name of the Redis server, or "embedded"
	MinReplicas int           // number of connected Redis replicas below which the primary refuses writes, with Sentinel
	FaultTime   time.Duration // how long an injected freeze or cut lasts; longer than every timeout of a read
	Background  bool          // warnings of the children go only to their log files, not to Err

	// Out receives progress and addresses, Err the children's warnings. A write that blocks would block the
	// supervisor and its children. nil discards.
	Out, Err io.Writer

	WriterPort, DirectPort, GatewayPort, GatewayMetricsPort int
	AuditorPort, LoadPort, PrometheusPort                   int
	PrometheusServer                                        string // program name of Prometheus, or "none"

	// Ports of the first process of a kind; the others have the next ones.
	ReaderPort, RedisPort, RedisBusPort, SentinelPort int

	Env      []string // environment of the children, in the form of os.Environ
	Password string   // password of the stack's own Redis; set before Stages
}

// ParseConfig reads the supervisor's settings. Settings that only the children have, such as CACHE_MAX_SIZE, reach them
// through the environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	c := Config{Common: daemon.Common{Host: supervisor.Host, Logger: slog.Default()}, Env: os.Environ(), FaultTime: 5 * time.Second}
	s := daemon.NewSettings("local", getenv)
	var level string
	s.Number(&c.Port, "DASHBOARD_PORT", 3000, 1, maxPort, "port of the dashboard and of the control API")
	s.String(&level, "LOG_LEVEL", "info", "lowest level that is logged, by the children too: debug, info, warn or error")
	s.String(&c.RunDir, "RUN_DIR", ".run", "folder of logs, pid file and Redis's data")
	s.Number(&c.Readers, "READERS", 3, 1, MaxReaders, fmt.Sprintf("readers in rotation at the start, 1 to %d", MaxReaders))
	s.List(&c.RedisAddr, "REDIS_ADDR", nil, "addresses of a Redis to use; unset: the stack starts its own")
	s.String(&c.Redis, "REDIS", "", "layout of the stack's own Redis, each with posts of its own: single; sentinel (a primary, two Redis replicas, three Sentinels); cluster (a Redis Cluster of six nodes); empty: the layout that was started last, at first single")
	s.String(&c.RedisServer, "REDIS_SERVER", defaultServer, `program of the Redis server, on PATH; "embedded": the Redis in this program, in memory only`)
	s.Number(&c.MinReplicas, "REDIS_MIN_REPLICAS", 1, 0, sentinelServers-1, "with REDIS=sentinel, number of connected Redis replicas below which the primary refuses writes: 1 bounds the writes that a primary loses when it is cut off, 0 accepts writes without any Redis replica")
	s.Number(&c.RedisPort, "REDIS_PORT", 6379, 1, maxPort, "port of the stack's own Redis, or of redis-1; the next servers have the next ports")
	s.Number(&c.SentinelPort, "SENTINEL_PORT", 26379, 1, maxPort, "port of sentinel-1; the next Sentinels have the next ports")
	s.Number(&c.RedisBusPort, "REDIS_BUS_PORT", 16379, 1, maxPort, "cluster bus port of redis-1; the next nodes have the next ports")
	s.Number(&c.WriterPort, "WRITER_PORT", 8080, 1, maxPort, "port of the writer")
	s.Number(&c.DirectPort, "DIRECT_PORT", 8081, 1, maxPort, "port of reader-direct, the reader that the gateway does not use")
	s.Number(&c.ReaderPort, "READER_PORT", 8082, 1, maxPort, "port of reader-1; the next readers have the next ports")
	s.Number(&c.GatewayPort, "GATEWAY_PORT", 9080, 1, maxPort, "port of the gateway")
	s.Number(&c.GatewayMetricsPort, "GATEWAY_METRICS_PORT", 9091, 1, maxPort, "port of the gateway's metrics")
	s.Number(&c.AuditorPort, "AUDITOR_PORT", 9093, 1, maxPort, "port of the auditor, which compares the readers with each other and with Redis")
	s.Number(&c.LoadPort, "LOAD_PORT", 3001, 1, maxPort, "port of the load generator's metrics, while it runs")
	s.Number(&c.PrometheusPort, "PROMETHEUS_PORT", 9090, 1, maxPort, "port of Prometheus")
	s.String(&c.PrometheusServer, "PROMETHEUS_SERVER", "prometheus", `program of Prometheus, which is started if it is on PATH; "none": no Prometheus`)
	s.Flag(&c.Background, "background", "keep the children's warnings off the terminal (they are in the log files)")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	if err := c.LogLevel.UnmarshalText([]byte(level)); err != nil {
		return Config{}, fmt.Errorf("LOG_LEVEL=%s: use debug, info, warn or error", level)
	}
	dir, err := filepath.Abs(c.RunDir)
	if err != nil {
		return Config{}, fmt.Errorf("RUN_DIR=%s: %w", c.RunDir, err)
	}
	c.RunDir = dir
	if c.Redis == "" {
		c.Redis = c.lastLayout()
	}
	return c, c.validate()
}

// LogTo sends the log of the Redis client, with which the supervisor checks Redis, to log at level debug.
func (c *Config) LogTo(log *slog.Logger) { redisconfig.LogClient(log) }

func (c *Config) validate() error {
	if c.Readers < 1 || c.Readers > MaxReaders {
		return fmt.Errorf("READERS=%d: between 1 and %d readers can be in rotation", c.Readers, MaxReaders)
	}
	if err := c.validateRedis(); err != nil {
		return err
	}
	return c.validatePorts()
}

// validatePorts reports a port that does not exist or is assigned twice.
func (c *Config) validatePorts() error {
	type wanted struct {
		env         string
		first, many int
	}
	all := []wanted{
		{"DASHBOARD_PORT", c.Port, 1}, {"WRITER_PORT", c.WriterPort, 1}, {"DIRECT_PORT", c.DirectPort, 1},
		{"GATEWAY_PORT", c.GatewayPort, 1}, {"GATEWAY_METRICS_PORT", c.GatewayMetricsPort, 1}, {"AUDITOR_PORT", c.AuditorPort, 1},
		{"READER_PORT", c.ReaderPort, MaxReaders}, {"LOAD_PORT", c.LoadPort, 1}, {"PROMETHEUS_PORT", c.PrometheusPort, 1},
	}
	if c.OwnRedis() {
		switch c.Redis {
		case Single:
			all = append(all, wanted{"REDIS_PORT", c.RedisPort, 1})
		case WithSentinel:
			all = append(all, wanted{"REDIS_PORT", c.RedisPort, sentinelServers}, wanted{"SENTINEL_PORT", c.SentinelPort, sentinels})
		case Cluster:
			all = append(all, wanted{"REDIS_PORT", c.RedisPort, clusterNodes}, wanted{"REDIS_BUS_PORT", c.RedisBusPort, clusterNodes})
		}
	}
	text := func(w wanted) string {
		if w.many == 1 {
			return w.env
		}
		return fmt.Sprintf("%s (the first of %d ports)", w.env, w.many)
	}
	taken := make(map[int]wanted)
	for _, w := range all {
		for p := w.first; p < w.first+w.many; p++ {
			if p < 1 || p > maxPort {
				return fmt.Errorf("%s: %d is not a TCP port, those are between 1 and %d", w.env, p, maxPort)
			}
			if other, ok := taken[p]; ok {
				return fmt.Errorf("%s and %s both use port %d: change one", text(other), text(w), p)
			}
			taken[p] = w
		}
	}
	return nil
}

func (c *Config) OwnRedis() bool { return len(c.RedisAddr) == 0 }

// File returns the path of a file in the run folder.
func (c *Config) File(name string) string { return filepath.Join(c.RunDir, name) }

// childEnv returns the environment of every child: that of the supervisor, with the addresses of the stack.
func (c *Config) childEnv() []string {
	env := append([]string{}, c.Env...) // the last of two entries with the same name counts
	env = append(env, c.redisEnv()...)
	return append(env,
		"HOST="+supervisor.Host,
		"LOG_LEVEL="+c.LogLevel.String(),
		"METRICS_PORT=", // writer and readers serve metrics on their only port; the gateway overrides this
		"GATEWAY_NODES_FILE="+c.File(NodesFile),
	)
}

// Getenv returns the value of a variable in an environment in the form of os.Environ, "" when it is not set. Of
// several entries the last one counts.
func Getenv(env []string, name string) string {
	value, _ := lookupEnv(env, name)
	return value
}

// lookupEnv is Getenv, and reports whether the variable is set, which an empty one is.
func lookupEnv(env []string, name string) (value string, set bool) {
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}
