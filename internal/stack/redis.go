package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Layouts of the stack's own Redis, as the setting REDIS names them.
const (
	redisSingle   = "single"
	redisSentinel = "sentinel"
	redisCluster  = "cluster"
)

// redisDefault is the Redis that is started when none is asked for and it is on PATH.
const redisDefault = "redis-server"

// redisEmbedded as REDIS_SERVER asks for the embedded Redis even where a redis-server is on PATH.
const redisEmbedded = "embedded"

// peer is one process of the stack's own Redis.
type peer struct {
	name string // such as redis-1
	addr string // host:port
}

// peers returns n processes with numbered names on ports in a row.
func peers(role string, firstPort, n int) []peer {
	var all []peer
	for i := range n {
		all = append(all, peer{fmt.Sprintf("%s-%d", role, i+1), address(firstPort + i)})
	}
	return all
}

// nameOf returns the name of the process at addr, or addr when it is none of them.
func nameOf(all []peer, addr string) string {
	for _, p := range all {
		if p.addr == addr {
			return p.name
		}
	}
	return addr
}

func addresses(all []peer) []string {
	var addrs []string
	for _, p := range all {
		addrs = append(addrs, p.addr)
	}
	return addrs
}

// validateRedis reports a layout that cannot work.
func (c *Config) validateRedis() error {
	switch {
	case c.Redis != redisSingle && c.Redis != redisSentinel && c.Redis != redisCluster:
		return fmt.Errorf("REDIS=%s: use %s, %s or %s", c.Redis, redisSingle, redisSentinel, redisCluster)
	case c.Redis != redisSingle && !c.ownRedis():
		return fmt.Errorf("REDIS=%s starts the stack's own Redis, and REDIS_ADDR names another one: unset one of them", c.Redis)
	case c.MinReplicas < 0 || c.MinReplicas >= sentinelServers:
		return fmt.Errorf("REDIS_MIN_REPLICAS=%d: there are %d Redis replicas, use 0 to %d", c.MinReplicas, sentinelServers-1, sentinelServers-1)
	}
	return nil
}

// layoutFile is the file in the run folder that names the layout that was started last.
const layoutFile = "layout"

// lastLayout returns the layout that was started last. Another one would not have its posts.
func (c *Config) lastLayout() string {
	text, err := os.ReadFile(c.file(layoutFile))
	if err != nil || !c.ownRedis() {
		return redisSingle
	}
	return strings.TrimSpace(string(text))
}

// redisEnv returns the environment variables that tell the children where Redis is.
func (c *Config) redisEnv() []string {
	if !c.ownRedis() {
		return []string{"REDIS_ADDR=" + strings.Join(c.RedisAddr, ",")}
	}
	addrs, master := c.seeds()
	return ownRedisEnv(addrs, master, c.password)
}

// ownRedisEnv is redisEnv for the stack's own Redis. That listens on the loopback, with one password for
// servers and Sentinels and without TLS: settings that are meant for another Redis would only be refused.
func ownRedisEnv(addrs []string, master, password string) []string {
	sentinelPassword := ""
	if master != "" {
		sentinelPassword = password
	}
	return []string{
		"REDIS_ADDR=" + strings.Join(addrs, ","), "REDIS_MASTER_NAME=" + master,
		"REDIS_USERNAME=", "REDIS_PASSWORD=" + password, "REDIS_SENTINEL_USERNAME=", "REDIS_SENTINEL_PASSWORD=" + sentinelPassword,
		"REDIS_TLS=", "REDIS_TLS_CA_FILE=", "REDIS_TLS_CERT_FILE=", "REDIS_TLS_KEY_FILE=", "REDIS_TLS_SERVER_NAME=",
	}
}

// redis returns where the stack's Redis is.
func (c *Config) redis() Redis {
	if !c.ownRedis() {
		return Redis{Addrs: c.RedisAddr}
	}
	addrs, master := c.seeds()
	return Redis{Layout: c.Redis, Addrs: addrs, MasterName: master}
}

// seeds returns what the stack's own Redis is found by: REDIS_ADDR and REDIS_MASTER_NAME.
func (c *Config) seeds() (addrs []string, master string) {
	switch c.Redis {
	case redisSentinel:
		return addresses(peers(roleSentinel, c.SentinelPort, sentinels)), masterName
	case redisCluster:
		return addresses(peers(roleRedis, c.RedisPort, clusterNodes)), ""
	}
	return []string{address(c.RedisPort)}, ""
}

// ownRedisStages returns the stages that start the stack's own Redis, and a phrase that describes it.
func (c *Config) ownRedisStages() ([]stage, string, error) {
	if c.Redis != redisSingle && c.RedisServer == redisEmbedded {
		return nil, "", fmt.Errorf("REDIS=%s needs a real redis-server, and REDIS_SERVER=%s asks for another: unset one of them", c.Redis, redisEmbedded)
	}
	if c.Redis != redisSingle && c.embedded() {
		return nil, "", fmt.Errorf("REDIS=%s needs a real redis-server, and there is none on PATH: install it (apt-get install redis-server, brew install redis), or use REDIS=%s", c.Redis, redisSingle)
	}
	switch c.Redis {
	case redisSentinel:
		return c.sentinelStages()
	case redisCluster:
		return c.clusterStages()
	}
	s, what, err := c.singleRedis()
	return []stage{{specs: []spec{s}}}, what, err
}

// singleRedis returns the spec of one Redis: the server on PATH, or the embedded one.
func (c *Config) singleRedis() (spec, string, error) {
	p := port{c.RedisPort, "REDIS_PORT"}
	if c.embedded() {
		s, err := c.child(roleRedis, "redis", p)
		s.metrics, s.check = "", checkRedis([]string{address(c.RedisPort)}, c.password)
		why := "no " + c.RedisServer + " on PATH"
		if c.RedisServer == redisEmbedded {
			why = "REDIS_SERVER=" + redisEmbedded
		}
		return s, "the embedded one, in memory only: posts are gone after a stop (" + why + ")", err
	}
	dir := c.redisDir()
	s, err := c.redisServer("redis", dir, p)
	s.check = checkRedis([]string{address(c.RedisPort)}, c.password)
	return s, s.path + ", append-only file in " + dir, err
}

// redisDirs are the folders in the run folder that hold Redis's data, one for each layout.
var redisDirs = map[string]string{redisSingle: "redis", redisSentinel: "sentinel", redisCluster: "cluster"}

func (c *Config) redisDir() string { return c.file(redisDirs[c.Redis]) }

// redisServer returns the spec of a redis-server that keeps its data in dir. Further arguments win over
// those that all servers have.
func (c *Config) redisServer(name, dir string, p port, more ...string) (spec, error) {
	conf := filepath.Join(dir, "redis.conf")
	s, err := c.redisProcess(roleRedis, name, p)
	s.prepare = func(context.Context) ([]string, error) {
		return nil, configure(conf, "# Redis and the stack rewrite this file; the stack's settings are its arguments.\n",
			c.password, "requirepass %q", "masterauth %q")
	}
	s.argv = append(s.argv, conf, // the arguments win over it
		"--port", strconv.Itoa(p.number), "--bind", host, "--dir", dir,
		// An acknowledged write is on disk: the promise P3 rests on these two.
		"--appendonly", "yes", "--appendfsync", "always",
		"--save", "", "--maxmemory-policy", "noeviction",
		// A rewrite of the append-only file takes a core for itself, more so with compression:
		// an import would cause one after the other.
		"--auto-aof-rewrite-min-size", "1gb", "--rdbcompression", "no",
		"--daemonize", "no", "--logfile", "",
	)
	s.argv = append(s.argv, more...)
	s.cure = func(line string) (words, cure string) {
		if _, text, ok := strings.Cut(line, " # "); ok { // behind process and time
			line = text
		}
		if strings.Contains(line, "reading the append only file") {
			data := filepath.Join(dir, "appendonlydir")
			cure = fmt.Sprintf("; what is damaged is cut off by redis-check-aof --fix %s (first copy %s)", filepath.Join(data, "appendonly.aof.manifest"), data)
		}
		return line, cure
	}
	return s, err
}

// redisProcess returns the spec of a process of the Redis program, without arguments.
func (c *Config) redisProcess(role, name string, ports ...port) (spec, error) {
	path, err := exec.LookPath(c.RedisServer)
	if err != nil {
		return spec{}, fmt.Errorf("find %s: %w", c.RedisServer, err)
	}
	return spec{
		name: name, role: role, ports: ports, path: path, argv: []string{path}, env: c.env, notable: notableRedis,
	}, nil
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder of Redis: %w", err)
	}
	return nil
}

// redisClient returns a client for one look at one process, for the caller to close. Each command is
// sent once and takes checkTimeout at most.
func redisClient(addr, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Password: password, Protocol: 2, PoolSize: 1, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: checkTimeout, ReadTimeout: checkTimeout, WriteTimeout: checkTimeout,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
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
	case c.Redis != redisSingle:
		return fmt.Sprintf("%s, REDIS=%s, append-only files in %s", c.RedisServer, c.Redis, c.redisDir())
	case c.embedded():
		return "embedded, in memory only: THE POSTS ARE GONE AFTER A STOP (install redis-server to keep them)"
	}
	return c.RedisServer + ", append-only file in " + c.redisDir()
}

// externalRedis is the state of a Redis that is not ours to start or stop.
func (c *Config) externalRedis(ctx context.Context) health { return checkRedis(c.RedisAddr, "")(ctx) }
