package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/target"
)

// ErrNoRedis reports that there is no redis-server to start.
var ErrNoRedis = errors.New("there is no redis-server on the PATH")

// Upstream is a Redis with a writer.
type Upstream struct {
	Redis, Writer *Process
	relay         bool // Redis is a Redis replica of the writer's
}

// Upstream starts a Redis that flushes every write to disk, and a writer.
func (l *Lab) Upstream(ctx context.Context, cores string) (*Upstream, error) {
	var u Upstream
	var err error
	u.Redis, err = l.redis(ctx, "redis", cores, "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
	if err != nil {
		return &u, err
	}
	u.Writer, err = l.role(ctx, "writer", cores, "REDIS_ADDR="+u.Redis.Addr)
	return &u, err
}

// Flush makes Redis flush writes to the disk by a policy: "always" or "everysec".
func (u *Upstream) Flush(ctx context.Context, policy string) error {
	client := redis.NewClient(&redis.Options{Addr: u.Redis.Addr, MaxRetries: -1})
	defer client.Close()
	if err := client.ConfigSet(ctx, "appendfsync", policy).Err(); err != nil {
		return fmt.Errorf("let Redis flush %s: %w", policy, err)
	}
	return nil
}

// Relay starts a Redis replica of an upstream, and blocks until it has the primary's data. Readers of the result read from
// the Redis replica.
func (l *Lab) Relay(ctx context.Context, u *Upstream) (*Upstream, error) {
	r := &Upstream{Writer: u.Writer, relay: true}
	host, port, err := net.SplitHostPort(u.Redis.Addr)
	if err != nil {
		return r, err
	}
	r.Redis, err = l.redis(ctx, "replica", "", "--replicaof", host+" "+port, "--repl-ping-replica-period", "1", "--repl-diskless-sync-delay", "0")
	if err != nil {
		return r, err
	}
	client := redis.NewClient(&redis.Options{Addr: r.Redis.Addr, MaxRetries: -1})
	defer client.Close()
	return r, r.Redis.await(ctx, func(ctx context.Context) error {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New("the replication link is down")
		}
		return err
	})
}

// redis starts a redis-server with these options, and blocks until it accepts connections. The process is not nil once it has
// been started.
func (l *Lab) redis(ctx context.Context, name, cores string, options ...string) (*Process, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNoRedis
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return nil, fmt.Errorf("create a folder for Redis: %w", err)
	}
	p, err := l.start(program{name: name, addr: local(port), cores: cores, path: path, args: append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "",
	}, options...)})
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, p.listens)
}

// Reader starts a reader of an upstream and blocks until it is ready. With trace the reader logs its garbage
// collections.
func (l *Lab) Reader(ctx context.Context, u *Upstream, cores string, trace bool) (*Process, error) {
	env := []string{"REDIS_ADDR=" + u.Redis.Addr, "POD_ID=reader"}
	if u.relay {
		env = append(env, "REDIS_READ_FROM=replica")
	}
	if trace {
		env = append(env, "GODEBUG=gctrace=1")
	}
	return l.role(ctx, "reader", cores, env...)
}

// Gateway starts the gateway that stands in for APISIX, in front of a reader.
func (l *Lab) Gateway(ctx context.Context, reader, cores string) (*Process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return l.role(ctx, "gateway", cores, "GATEWAY_READERS="+reader, "METRICS_PORT="+strconv.Itoa(port))
}

// role starts one of the services, and blocks until it is ready.
func (l *Lab) role(ctx context.Context, name, cores string, env ...string) (*Process, error) {
	if err := l.build(ctx); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := l.start(program{
		name: name, addr: local(port), cores: cores, path: l.roles, args: []string{name},
		env: append([]string{"HOST=127.0.0.1", "PORT=" + strconv.Itoa(port), "LOG_LEVEL=warn"}, env...),
	})
	if err != nil {
		return nil, err
	}
	path := "/ready"
	if name == "gateway" {
		path = "/post?id=any" // its /ready is on another port
	}
	return p, p.await(ctx, func(ctx context.Context) error { return ready(ctx, "http://"+p.Addr+path) })
}

func ready(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := target.Client.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode >= http.StatusInternalServerError {
		return errors.New(res.Status)
	}
	return nil
}

// Memory is the resident memory of a process, in bytes.
type Memory struct{ Now, Peak int64 }

// Memory reads the resident memory of the process.
func (p *Process) Memory() (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of %s: %w", p.name, err)
	}
	return parseMemory(string(text))
}

func parseMemory(text string) (m Memory, err error) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &m.Now, "VmHWM": &m.Peak}[name]
		if into == nil {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("parse %s of a process: %w", name, err)
		}
		*into = kB << 10
	}
	if m.Now == 0 || m.Peak == 0 {
		err = errors.New("parse the memory of a process: VmRSS or VmHWM is missing")
	}
	return m, err
}
