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
)

// Role is what a server does in its replication.
type Role string

// The roles. Their text is what REDIS_READ_FROM takes.
const (
	Primary Role = "primary"
	Replica Role = "replica"
)

// Config says where Redis is. One address is a server, or a name of it that may move to another
// one; several are seeds of a Redis Cluster, unless MasterName makes them Sentinels.
type Config struct {
	Addrs      []string // host:port, or the path of a Unix socket
	MasterName string   // the primary's name at the Sentinels; "" without Sentinels
	ReadFrom   Role     // what the server has to be; default Primary

	Username, Password string
	DB                 int
	// SentinelUsername and SentinelPassword log in to the Sentinels.
	SentinelUsername, SentinelPassword string
	TLS                                *TLS // nil for none

	// Key decides which shard of a Redis Cluster is meant: the one that owns this key.
	Key string
	// Timeout bounds dialing, each read and each write; default 1 s. Contexts bound them too.
	Timeout time.Duration
	// PoolSize bounds the connections to the server, subscriptions not counted; default 10 for each
	// processor. PoolTimeout bounds the wait for one; default Timeout.
	PoolSize    int
	PoolTimeout time.Duration
	Logger      *slog.Logger // default slog.Default()
	// LookupHost resolves names; default net.DefaultResolver.LookupHost.
	LookupHost func(ctx context.Context, host string) ([]string, error)

	certificates *certificates // of TLS
}

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
		return errors.New("no address of Redis: write host:port, such as 127.0.0.1:6379")
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
			return fmt.Errorf("%q: Sentinels and the nodes of a cluster have host:port addresses", addr)
		}
	}
	switch {
	case c.TLS != nil && c.TLS.ServerName == "" && network(c.Addrs[0]) == "unix":
		return errors.New("TLS over a Unix socket: set the name that the server's certificate has")
	case c.ReadFrom != Primary && c.ReadFrom != Replica:
		return fmt.Errorf("read from %q: use %s or %s", c.ReadFrom, Primary, Replica)
	case c.DB < 0:
		return fmt.Errorf("database %d: databases are numbered from 0", c.DB)
	case c.DB > 0 && len(c.Addrs) > 1 && c.MasterName == "":
		return fmt.Errorf("database %d: a Redis Cluster, which several addresses stand for, has database 0 only", c.DB)
	}
	return nil
}

// checkAddr reports an address that is neither host:port nor a path.
func checkAddr(addr string) error {
	if network(addr) == "unix" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
		return fmt.Errorf("%q is no address: write host:port, such as 127.0.0.1:6379, or the path of a socket, such as /run/redis.sock", addr)
	}
	return nil
}

func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// options returns the options of a client of addr alone. name is what a certificate has to be for
// when it is not the host of addr.
//
// MaxRetries is -1 because go-redis repeats a command whose reply was lost, and a write would
// happen twice. ContextTimeoutEnabled makes contexts bound reads from the connection, which they
// do not by default.
func (c *Config) options(addr, name string) *redis.Options {
	o := &redis.Options{
		Network:               network(addr),
		Addr:                  addr,
		Username:              c.Username,
		Password:              c.Password,
		DB:                    c.DB,
		MaxRetries:            -1,
		DisableIdentity:       true, // CLIENT SETINFO: a command more to allow in an access list, known from Redis 7.2 on
		ContextTimeoutEnabled: true,
		DialTimeout:           c.Timeout,
		DialerRetries:         1,
		ReadTimeout:           c.Timeout,
		WriteTimeout:          c.Timeout,
		PoolSize:              c.PoolSize,
		PoolTimeout:           c.PoolTimeout,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // a managed service's protocol, not ours
		},
	}
	if c.ReadFrom == Replica && len(c.Addrs) > 1 && c.MasterName == "" {
		// Without this a Redis replica in a cluster sends every read to its primary.
		o.OnConnect = func(ctx context.Context, conn *redis.Conn) error { return conn.ReadOnly(ctx).Err() }
	}
	if c.certificates != nil {
		o.Dialer = c.certificates.dialer(name, c.Timeout)
	}
	return o
}
