package redisnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"heavy-read-api/internal/rawio"
)

// Role is a server's role in replication.
type Role string

// The roles, which are also the values of REDIS_READ_FROM.
const (
	Primary Role = "primary"
	Replica Role = "replica"
)

// Config describes a Redis deployment. With MasterName the addresses are Sentinels. Otherwise a single
// address is a server, whose DNS name may move to another one, and several are the seeds of a Redis Cluster.
type Config struct {
	Addrs      []string // host:port, or the path of a Unix socket
	MasterName string   // name of the primary in the Sentinels' configuration; "" without Sentinels
	ReadFrom   Role     // Primary, the default, requires one; Replica prefers Redis replicas and accepts a primary

	Username, Password string
	DB                 int
	// SentinelUsername and SentinelPassword are the credentials for the Sentinels.
	SentinelUsername, SentinelPassword string
	TLS                                *TLS // nil for unencrypted connections

	// Key selects the shard of a Redis Cluster: the one that owns the hash slot of this key.
	Key string
	// Timeout bounds dialing, each read and each write, in addition to their contexts; default 1 s.
	Timeout time.Duration
	// PoolSize bounds the connections to the server, not counting subscriptions; default 10 per processor.
	// PoolTimeout bounds the wait for a free connection; default Timeout.
	PoolSize    int
	PoolTimeout time.Duration
	Logger      *slog.Logger // default slog.Default()
	// LookupHost resolves host names; default net.DefaultResolver.LookupHost.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	certificates *certificates // loaded from TLS
}

// complete sets the defaults and validates the configuration.
func (c *Config) complete() error {
	c.ReadFrom = cmp.Or(c.ReadFrom, Primary)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	c.PoolSize = cmp.Or(c.PoolSize, 10*runtime.GOMAXPROCS(0))
	c.PoolTimeout = cmp.Or(c.PoolTimeout, c.Timeout)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.LookupHost == nil {
		c.LookupHost = net.DefaultResolver.LookupHost
	}
	if len(c.Addrs) == 0 {
		return errors.New("no address of Redis: use host:port, such as 127.0.0.1:6379")
	}
	if c.TLS != nil {
		var err error
		if c.certificates, err = c.TLS.load(); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
	}
	several := len(c.Addrs) > 1 || c.MasterName != ""
	for _, addr := range c.Addrs {
		if err := checkAddr(addr); err != nil {
			return err
		}
		if several && network(addr) == "unix" {
			return fmt.Errorf("%q is a Unix socket: use host:port for Sentinels and cluster nodes", addr)
		}
	}
	switch {
	case c.TLS != nil && c.TLS.ServerName == "" && network(c.Addrs[0]) == "unix":
		return errors.New("TLS over a Unix socket requires a server name: set the one in the server's certificate")
	case c.ReadFrom != Primary && c.ReadFrom != Replica:
		return fmt.Errorf("read from %q: use %s or %s", c.ReadFrom, Primary, Replica)
	case c.DB < 0:
		return fmt.Errorf("database %d: databases are numbered from 0", c.DB)
	case c.DB > 0 && len(c.Addrs) > 1 && c.MasterName == "":
		return fmt.Errorf("database %d: several addresses mean a Redis Cluster, which has database 0 only", c.DB)
	}
	return nil
}

// checkAddr returns an error unless addr is host:port or a path.
func checkAddr(addr string) error {
	if network(addr) == "unix" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
		return fmt.Errorf("%q is not an address: use host:port, such as 127.0.0.1:6379, or the path of a socket, such as /run/redis.sock", addr)
	}
	return nil
}

func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// options returns the options of a client for the single server at addr. name is the host name that the
// server's certificate must have.
//
// MaxRetries is -1 because go-redis would repeat a command whose reply was lost, and apply a write twice.
// ContextTimeoutEnabled makes context deadlines bound reads from the connection, which is off by default.
func (c *Config) options(addr, name string) *redis.Options {
	o := &redis.Options{
		Network:               network(addr),
		Addr:                  addr,
		Username:              c.Username,
		Password:              c.Password,
		DB:                    c.DB,
		MaxRetries:            -1,
		DisableIdentity:       true, // CLIENT SETINFO requires Redis 7.2 and one more right in the ACL
		ContextTimeoutEnabled: true,
		DialTimeout:           c.Timeout,
		DialerRetries:         1,
		ReadTimeout:           c.Timeout,
		WriteTimeout:          c.Timeout,
		PoolSize:              c.PoolSize,
		PoolTimeout:           c.PoolTimeout,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // only managed services send maintenance notifications
		},
	}
	if c.ReadFrom == Replica && len(c.Addrs) > 1 && c.MasterName == "" {
		// Without READONLY a Redis replica in a cluster redirects every read to its primary.
		o.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.ReadOnly(ctx).Err() }
	}
	if c.certificates != nil {
		o.Dialer = c.certificates.dialer(name, c.Timeout)
		return o
	}
	dial := redis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return rawio.New(conn), nil
	}
	return o
}
