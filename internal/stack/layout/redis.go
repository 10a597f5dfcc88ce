package layout

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Layouts of the stack's own Redis, as the setting REDIS names them.
const (
	Single       = "single"
	WithSentinel = "sentinel"
	Cluster      = "cluster"
)

// defaultServer is the Redis program that is started by default, if it is on PATH.
const defaultServer = "redis-server"

// Embedded is the value of REDIS_SERVER that selects the embedded Redis even if redis-server is on PATH.
const Embedded = "embedded"

// peer is one process of the stack's own Redis.
type peer struct {
	name string // such as redis-1
	addr string // host:port
}

// peers returns n processes with numbered names on ports in a row.
func peers(role string, firstPort, n int) []peer {
	var all []peer
	for i := range n {
		all = append(all, peer{fmt.Sprintf("%s-%d", role, i+1), supervisor.Address(firstPort + i)})
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

// validateRedis reports a layout of Redis that cannot work.
func (c *Config) validateRedis() error {
	switch {
	case c.Redis != Single && c.Redis != WithSentinel && c.Redis != Cluster:
		return fmt.Errorf("REDIS=%s: use %s, %s or %s", c.Redis, Single, WithSentinel, Cluster)
	case c.Redis != Single && !c.OwnRedis():
		return fmt.Errorf("REDIS=%s starts the stack's own Redis, and REDIS_ADDR names another one: unset one of them", c.Redis)
	case c.MinReplicas < 0 || c.MinReplicas >= sentinelServers:
		return fmt.Errorf("REDIS_MIN_REPLICAS=%d: there are %d Redis replicas, use 0 to %d", c.MinReplicas, sentinelServers-1, sentinelServers-1)
	}
	return nil
}

// layoutFile is the file in the run folder with the layout that was started last.
const layoutFile = "layout"

// Remember makes the layout the default of later starts.
func (c *Config) Remember() error {
	if !c.OwnRedis() {
		return nil
	}
	if err := rundir.WriteFile(c.File(layoutFile), c.Redis+"\n"); err != nil {
		return fmt.Errorf("remember the layout of Redis: %w", err)
	}
	return nil
}

// lastLayout returns the layout that was started last: each layout has posts of its own.
func (c *Config) lastLayout() string {
	text, err := os.ReadFile(c.File(layoutFile))
	if err != nil || !c.OwnRedis() {
		return Single
	}
	return strings.TrimSpace(string(text))
}

// redisEnv returns the environment variables with the address of Redis.
func (c *Config) redisEnv() []string {
	if !c.OwnRedis() {
		return []string{"REDIS_ADDR=" + strings.Join(c.RedisAddr, ",")}
	}
	addrs, master := c.seeds()
	return OwnRedisEnv(addrs, master, c.Password)
}

// OwnRedisEnv returns redisEnv for the stack's own Redis, which has one password for servers and Sentinels, and no
// TLS. It overrides settings of the environment that are meant for another Redis.
func OwnRedisEnv(addrs []string, master, password string) []string {
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

// Server returns the address of the stack's Redis.
func (c *Config) Server() state.RedisServer {
	if !c.OwnRedis() {
		return state.RedisServer{Addrs: c.RedisAddr}
	}
	addrs, master := c.seeds()
	return state.RedisServer{Layout: c.Redis, Addrs: addrs, MasterName: master, InMemory: c.InMemory()}
}

// seeds returns REDIS_ADDR and REDIS_MASTER_NAME of the stack's own Redis.
func (c *Config) seeds() (addrs []string, master string) {
	switch c.Redis {
	case WithSentinel:
		return addresses(peers(state.Sentinel, c.SentinelPort, sentinels)), masterName
	case Cluster:
		return addresses(peers(state.Redis, c.RedisPort, clusterNodes)), ""
	}
	return []string{supervisor.Address(c.RedisPort)}, ""
}

// ownRedisStages returns the stages that start the stack's own Redis, and a phrase that describes it.
func (c *Config) ownRedisStages() ([]Stage, string, error) {
	if c.Redis != Single && c.RedisServer == Embedded {
		return nil, "", fmt.Errorf("REDIS=%s needs a real redis-server: the embedded Redis (REDIS_SERVER=%s) has no replication; unset one of the two", c.Redis, Embedded)
	}
	if c.Redis != Single && c.embedded() {
		return nil, "", fmt.Errorf("REDIS=%s needs a real redis-server, and there is none on PATH: install it (apt-get install redis-server, brew install redis), or use REDIS=%s", c.Redis, Single)
	}
	switch c.Redis {
	case WithSentinel:
		return c.sentinelStages()
	case Cluster:
		return c.clusterStages()
	}
	s, what, err := c.singleRedis()
	return []Stage{{Specs: []supervisor.Spec{s}}}, what, err
}

// singleRedis returns the spec of a single Redis: the server on PATH, or the embedded one.
func (c *Config) singleRedis() (supervisor.Spec, string, error) {
	p := supervisor.Port{Number: c.RedisPort, Env: "REDIS_PORT"}
	if c.embedded() {
		s, err := c.child(state.Redis, "redis", p)
		s.Metrics, s.Check = "", checkRedis([]string{supervisor.Address(c.RedisPort)}, c.Password)
		why := "no " + c.RedisServer + " on PATH"
		if c.RedisServer == Embedded {
			why = "REDIS_SERVER=" + Embedded
		}
		return s, "the embedded one, in memory only: posts are lost at a stop (" + why + ")", err
	}
	dir := c.redisDir()
	s, err := c.redisServer("redis", dir, p)
	s.Check = checkRedis([]string{supervisor.Address(c.RedisPort)}, c.Password)
	return s, s.Path + ", append-only file in " + dir, err
}

// redisDirs are the folders in the run folder that hold Redis's data, one for each layout.
var redisDirs = map[string]string{Single: "redis", WithSentinel: "sentinel", Cluster: "cluster"}

// DataDirs returns the folders that hold data of Redis.
func (c *Config) DataDirs() []string {
	var dirs []string
	for _, layout := range []string{Single, WithSentinel, Cluster} {
		dir := c.File(redisDirs[layout])
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (c *Config) redisDir() string { return c.File(redisDirs[c.Redis]) }

// redisServer returns the spec of a redis-server with its data in dir. more overrides the common arguments.
func (c *Config) redisServer(name, dir string, p supervisor.Port, more ...string) (supervisor.Spec, error) {
	conf := filepath.Join(dir, "redis.conf")
	s, err := c.redisProcess(state.Redis, name, p)
	s.Prepare = func(context.Context) ([]string, error) {
		return nil, configure(conf, "# Redis and the stack rewrite this file; the stack's settings are its arguments.\n",
			c.Password, "requirepass %q", "masterauth %q")
	}
	s.Argv = append(s.Argv, conf, // which the arguments override
		"--port", strconv.Itoa(p.Number), "--bind", supervisor.Host, "--dir", dir,
		// An acknowledged write is on disk (promise P3).
		"--appendonly", "yes", "--appendfsync", "always",
		"--save", "", "--maxmemory-policy", "noeviction",
		// A rewrite of the append-only file occupies a core, and more so with compression. An import would cause one
		// rewrite after the other.
		"--auto-aof-rewrite-min-size", "1gb", "--rdbcompression", "no",
		"--daemonize", "no", "--logfile", "",
	)
	s.Argv = append(s.Argv, more...)
	s.Cure = func(line string) (words, cure string) {
		if _, text, ok := strings.Cut(line, " # "); ok { // behind process and time
			line = text
		}
		if strings.Contains(line, "reading the append only file") {
			data := filepath.Join(dir, "appendonlydir")
			cure = fmt.Sprintf("; copy %s, then run redis-check-aof --fix %s, which cuts off the damaged end", data, filepath.Join(data, "appendonly.aof.manifest"))
		}
		return line, cure
	}
	return s, err
}

// redisProcess returns the spec of a process of the Redis program, without arguments.
func (c *Config) redisProcess(role, name string, ports ...supervisor.Port) (supervisor.Spec, error) {
	path, err := exec.LookPath(c.RedisServer)
	if err != nil {
		return supervisor.Spec{}, fmt.Errorf("find %s: %w", c.RedisServer, err)
	}
	return supervisor.Spec{
		Name: name, Role: role, Ports: ports, Path: path, Argv: []string{path}, Env: c.Env, Notable: notableRedis,
	}, nil
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder of Redis: %w", err)
	}
	return nil
}

// redisClient returns a client for one health check, for the caller to close. Each command is sent once and takes
// health.Timeout at most.
func redisClient(addr, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Password: password, Protocol: 2, PoolSize: 1, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: health.Timeout, ReadTimeout: health.Timeout, WriteTimeout: health.Timeout,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// embedded reports whether the stack's own Redis is the embedded one: REDIS_SERVER selects it, or REDIS_SERVER is the
// default and there is no redis-server.
func (c *Config) embedded() bool {
	_, err := exec.LookPath(c.RedisServer)
	return c.RedisServer == Embedded || err != nil && c.RedisServer == defaultServer
}

// InMemory reports whether the stack's own Redis loses its posts when it ends.
func (c *Config) InMemory() bool { return c.OwnRedis() && c.Redis == Single && c.embedded() }

// RedisNote describes in one line where the posts are kept.
func (c *Config) RedisNote() string {
	switch {
	case !c.OwnRedis():
		return strings.Join(c.RedisAddr, ",") + " (REDIS_ADDR)"
	case c.Redis != Single:
		return fmt.Sprintf("%s (append-only files of %s, REDIS=%s)", c.redisDir(), c.RedisServer, c.Redis)
	case c.embedded():
		return "the memory of the embedded Redis: THEY ARE LOST AT A STOP (install redis-server to keep them)"
	}
	return c.redisDir() + " (append-only file of " + c.RedisServer + ")"
}

// ExternalRedis checks a Redis that the stack has not started.
func (c *Config) ExternalRedis(ctx context.Context) state.Health {
	return checkRedis(c.RedisAddr, "")(ctx)
}
