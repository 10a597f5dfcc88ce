package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// Roles of processes. Each is also the first argument with which the program runs as one.
const (
	roleRedis   = "redis"
	roleWriter  = "writer"
	roleReader  = "reader"
	roleGateway = "gateway"
)

// redisDefault is the Redis that is started when none is asked for and it is on PATH.
const redisDefault = "redis-server"

const gatewayMetricsPath = "/apisix/prometheus/metrics"

// child returns the spec of a process that is this very program in another role.
func (c *Config) child(role, name string, ports ...port) (spec, error) {
	path, err := self()
	if err != nil {
		return spec{}, fmt.Errorf("find the running program: %w", err)
	}
	return spec{
		name: name, role: role, ports: ports,
		path: path,
		// The port is an argument so that ps tells the processes apart.
		argv:    []string{"local", role, "-port=" + strconv.Itoa(ports[0].number)},
		env:     c.childEnv(),
		metrics: "http://" + address(ports[0].number) + "/metrics",
		check:   checkHTTP("http://" + address(ports[0].number) + "/ready"),
		notable: notable,
	}, nil
}

// embeddedLog is the length of the log in the embedded Redis, which walks all of it at each write.
const embeddedLog = 10_000

func (c *Config) writer() (spec, error) {
	s, err := c.child(roleWriter, "writer", port{c.WriterPort, "WRITER_PORT"})
	if _, set := os.LookupEnv("CACHE_LOG_LENGTH"); !set && len(c.RedisAddr) == 0 && c.embedded() {
		s.env = append(s.env, "CACHE_LOG_LENGTH="+strconv.Itoa(embeddedLog))
	}
	return s, err
}

// embedded reports whether the stack's own Redis is the embedded one: when it is asked for, or when
// there is no other and none was asked for.
func (c *Config) embedded() bool {
	_, err := exec.LookPath(c.RedisServer)
	return c.RedisServer == redisEmbedded || err != nil && c.RedisServer == redisDefault
}

// redisNote says in a line what keeps the posts.
func (c *Config) redisNote() string {
	switch {
	case !c.ownRedis():
		return strings.Join(c.RedisAddr, ",") + " (REDIS_ADDR)"
	case c.embedded():
		return "embedded, in memory only: THE POSTS ARE GONE AFTER A STOP (install redis-server to keep them)"
	}
	return c.RedisServer + ", append-only file in " + c.file("redis")
}

// reader returns the spec of the n-th reader in rotation, from 1.
func (c *Config) reader(n int) (spec, error) {
	return c.namedReader(fmt.Sprintf("reader-%d", n), port{c.ReaderPort + n - 1, "READER_PORT"})
}

func (c *Config) direct() (spec, error) {
	return c.namedReader("reader-direct", port{c.DirectPort, "DIRECT_PORT"})
}

func (c *Config) namedReader(name string, p port) (spec, error) {
	s, err := c.child(roleReader, name, p)
	s.argv = append(s.argv, "-pod-id="+name)
	return s, err
}

func (c *Config) gateway() (spec, error) {
	metrics := address(c.GatewayMetricsPort)
	s, err := c.child(roleGateway, "gateway",
		port{c.GatewayPort, "GATEWAY_PORT"}, port{c.GatewayMetricsPort, "GATEWAY_METRICS_PORT"})
	s.metrics = "http://" + metrics + gatewayMetricsPath
	s.check = checkHTTP("http://" + metrics + "/ready")
	return s, err
}

// redis returns the spec of the stack's own Redis and a word on what it is: the server on PATH, or
// the embedded one.
func (c *Config) redis() (spec, string, error) {
	p := port{c.RedisPort, "REDIS_PORT"}
	if c.embedded() {
		s, err := c.child(roleRedis, "redis", p)
		s.metrics, s.check = "", checkRedis([]string{address(c.RedisPort)})
		why := "no " + c.RedisServer + " on PATH"
		if c.RedisServer == redisEmbedded {
			why = "REDIS_SERVER=" + redisEmbedded
		}
		return s, "the embedded one, in memory only: posts are gone after a stop (" + why + ")", err
	}
	path, err := exec.LookPath(c.RedisServer)
	if err != nil {
		return spec{}, "", fmt.Errorf("find %s: %w", c.RedisServer, err)
	}
	dir := c.file("redis")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return spec{}, "", fmt.Errorf("make Redis's folder: %w", err)
	}
	return spec{
		name: "redis", role: roleRedis, ports: []port{p},
		path: path,
		argv: []string{
			path, "--port", strconv.Itoa(c.RedisPort), "--bind", host, "--dir", dir,
			// An acknowledged write is on disk: the promise P3 rests on these two.
			"--appendonly", "yes", "--appendfsync", "always",
			"--save", "", "--maxmemory-policy", "noeviction",
			// A rewrite of the append-only file takes a core for itself, more so with compression:
			// an import would cause one after the other.
			"--auto-aof-rewrite-min-size", "1gb", "--rdbcompression", "no",
			"--daemonize", "no", "--logfile", "",
		},
		env:     c.env,
		check:   checkRedis([]string{address(c.RedisPort)}),
		notable: notableRedis,
	}, path + ", append-only file in " + dir, nil
}

// externalRedis is the state of a Redis that is not ours to start or stop.
func (c *Config) externalRedis(ctx context.Context) health { return checkRedis(c.RedisAddr)(ctx) }
