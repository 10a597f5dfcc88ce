// Package stack runs the whole system on one machine without Docker: every part is an
// operating-system process of its own, and one supervisor starts, watches, scales and stops them.
package stack

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"heavy-read-api/internal/service"
)

// MaxReaders is the most readers that the stack puts into rotation.
const MaxReaders = 20

// host is the only address that the stack listens on: it is a development stack without passwords.
const host = "127.0.0.1"

// redisEmbedded as REDIS_SERVER asks for the embedded Redis even where a redis-server is on PATH.
const redisEmbedded = "embedded"

// Config is how the stack is laid out on this machine. Common.Port is the dashboard's port.
type Config struct {
	service.Common
	RunDir      string   // logs, pid file, nodes file, Redis's data
	Readers     int      // readers in rotation at the start
	RedisAddr   []string // an existing Redis; when empty the stack starts one
	RedisServer string   // program name of the Redis server, or "embedded"
	WriterToken string   // the writer's bearer token, for the dashboard's form
	Background  bool     // no terminal: children's warnings go to their log files, not to Err

	// Out gets progress and addresses, Err the children's warnings. They must not block, or they
	// would hold up the supervisor and its children; nil discards.
	Out, Err io.Writer

	RedisPort, WriterPort, DirectPort, GatewayPort, GatewayMetricsPort int
	ReaderPort                                                         int // of reader-1; reader-2 has the next one

	env []string // what the children inherit, as os.Environ gives it
}

// ParseConfig reads the supervisor's settings. What it does not know (CACHE_MAX_SIZE, ...) reaches
// the children through the environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	c := Config{Common: service.Common{Host: host}, env: os.Environ()}
	s := service.NewSettings("local", getenv)
	var level string
	s.Int(&c.Port, "DASHBOARD_PORT", 3000, "port of the dashboard and of the supervisor's control interface")
	s.String(&level, "LOG_LEVEL", "info", "least level that is logged, by the children too: debug, info, warn or error")
	s.String(&c.RunDir, "RUN_DIR", ".run", "folder of logs, pid file and Redis's data")
	s.Int(&c.Readers, "READERS", 3, fmt.Sprintf("readers in rotation at the start, 1 to %d", MaxReaders))
	s.List(&c.RedisAddr, "REDIS_ADDR", nil, "addresses of a Redis to use; unset: the stack starts its own")
	s.String(&c.RedisServer, "REDIS_SERVER", redisDefault, `Redis program to start when it is on PATH; "embedded" asks for the one built in`)
	s.String(&c.WriterToken, "WRITER_TOKEN", "", "bearer token that the writer asks for")
	s.Int(&c.RedisPort, "REDIS_PORT", 6379, "port of the stack's own Redis")
	s.Int(&c.WriterPort, "WRITER_PORT", 8080, "port of the writer")
	s.Int(&c.DirectPort, "DIRECT_PORT", 8081, "port of reader-direct, the reader outside of the rotation")
	s.Int(&c.ReaderPort, "READER_PORT", 8082, "port of reader-1; the next readers have the next ports")
	s.Int(&c.GatewayPort, "GATEWAY_PORT", 9080, "port of the gateway")
	s.Int(&c.GatewayMetricsPort, "GATEWAY_METRICS_PORT", 9091, "port of the gateway's metrics")
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
	return c, c.validate()
}

func (c *Config) validate() error {
	if c.Readers < 1 || c.Readers > MaxReaders {
		return fmt.Errorf("READERS=%d: between 1 and %d readers can be in rotation", c.Readers, MaxReaders)
	}
	type wanted struct {
		env  string
		port int
	}
	all := []wanted{
		{"DASHBOARD_PORT", c.Port}, {"WRITER_PORT", c.WriterPort}, {"DIRECT_PORT", c.DirectPort},
		{"GATEWAY_PORT", c.GatewayPort}, {"GATEWAY_METRICS_PORT", c.GatewayMetricsPort},
	}
	if c.ownRedis() {
		all = append(all, wanted{"REDIS_PORT", c.RedisPort})
	}
	for i := range MaxReaders {
		all = append(all, wanted{"READER_PORT", c.ReaderPort + i})
	}
	taken := make(map[int]string, len(all))
	for _, w := range all {
		if w.port < 1 || w.port > 65535 {
			return fmt.Errorf("%s: %d is not a TCP port, those are between 1 and 65535", w.env, w.port)
		}
		if other, ok := taken[w.port]; ok {
			return fmt.Errorf("%s and %s both want port %d (READER_PORT stands for %d ports in a row): change one",
				other, w.env, w.port, MaxReaders)
		}
		taken[w.port] = w.env
	}
	return nil
}

func (c *Config) ownRedis() bool { return len(c.RedisAddr) == 0 }

// file returns the path of a file in the run folder.
func (c *Config) file(name string) string { return filepath.Join(c.RunDir, name) }

func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.Default()
}

// childEnv is the environment of every child: what the supervisor was given, and where things are.
func (c *Config) childEnv() []string {
	redis := strings.Join(c.RedisAddr, ",")
	env := append([]string{}, c.env...) // of two entries with one name the later counts
	if c.ownRedis() {
		redis = address(c.RedisPort)
		// The stack's own Redis listens on the loopback and knows no password: one that is meant
		// for another Redis would only be refused.
		env = append(env, "REDIS_USERNAME=", "REDIS_PASSWORD=")
	}
	return append(env,
		"HOST="+host,
		"REDIS_ADDR="+redis,
		"LOG_LEVEL="+c.LogLevel.String(),
		"WRITER_TOKEN="+c.WriterToken,
		"METRICS_PORT="+strconv.Itoa(c.GatewayMetricsPort),
		"GATEWAY_NODES_FILE="+c.file(nodesFile),
	)
}

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
