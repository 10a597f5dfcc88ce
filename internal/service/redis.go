package service

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache"
)

// Redis are the settings of a process that talks to Redis.
type Redis struct {
	Addr      []string // host:port; several are the seeds of a Redis Cluster
	Username  string
	Password  string
	DB        int
	Channel   string // Pub/Sub channel of the updates
	Namespace string // first part of every key
}

// Register adds the settings to s.
func (r *Redis) Register(s *Settings) {
	s.List(&r.Addr, "REDIS_ADDR", []string{"127.0.0.1:6379"}, "addresses of Redis, host:port, comma-separated; several are the seeds of a Redis Cluster")
	s.String(&r.Username, "REDIS_USERNAME", "", "user to log in as")
	s.String(&r.Password, "REDIS_PASSWORD", "", "password to log in with; other users of the machine can read flags, so prefer the variable")
	s.Int(&r.DB, "REDIS_DB", 0, "number of the database")
	s.String(&r.Channel, "CACHE_CHANNEL", "posts_updates", "Pub/Sub channel of the updates, the same in all processes")
	s.String(&r.Namespace, "CACHE_NAMESPACE", "posts", "first part of every key in Redis, the same in all processes")
}

// Validate reports a setting that cannot work.
func (r *Redis) Validate() error {
	for _, addr := range r.Addr {
		host, port, err := net.SplitHostPort(addr)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
			return fmt.Errorf("REDIS_ADDR: %q is no address: write host:port, such as 127.0.0.1:6379", addr)
		}
	}
	switch {
	case len(r.Addr) == 0:
		return fmt.Errorf("REDIS_ADDR is empty: write host:port, such as 127.0.0.1:6379")
	case r.DB < 0:
		return fmt.Errorf("REDIS_DB=%d: databases are numbered from 0", r.DB)
	case r.DB > 0 && len(r.Addr) > 1:
		return fmt.Errorf("REDIS_DB=%d: a Redis Cluster, which several REDIS_ADDR stand for, has database 0 only", r.DB)
	case r.Username != "" && r.Password == "":
		return fmt.Errorf("REDIS_USERNAME without REDIS_PASSWORD: set both")
	}
	return nil
}

// Options returns options with which the promises of package cache hold.
func (r *Redis) Options() *redis.UniversalOptions {
	o := cache.ClientOptions(r.Addr...)
	o.Username, o.Password, o.DB = r.Username, r.Password, r.DB
	return o
}

// redisLog passes what the Redis client has to say, which concerns its connections, on to the log
// of the process. The client repeats itself while Redis is away, and whoever asked it logs too.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, "redis client: "+fmt.Sprintf(format, args...))
}
