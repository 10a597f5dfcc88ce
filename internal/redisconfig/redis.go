// Package redisconfig configures the processes that connect to Redis.
package redisconfig

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisnode"
)

// Redis holds the settings of the connections to Redis.
type Redis struct {
	Addr       []string // see the help text of REDIS_ADDR
	MasterName string
	Username   string
	Password   string
	DB         int

	SentinelUsername, SentinelPassword string

	UseTLS bool
	TLS    redisnode.TLS

	Channel   string // Pub/Sub channel of the updates
	Namespace string // first part of every key
}

// Register adds the settings to s.
func (r *Redis) Register(s *daemon.Settings) {
	s.List(&r.Addr, "REDIS_ADDR", []string{"127.0.0.1:6379"}, "address of Redis: host:port, the path of a Unix socket, or a redis:// or rediss:// URL; several, comma-separated, are the seed nodes of a Redis Cluster or, with REDIS_MASTER_NAME, the Sentinels")
	s.String(&r.MasterName, "REDIS_MASTER_NAME", "", "name under which the Sentinels monitor the primary; if set, REDIS_ADDR lists the Sentinels")
	s.String(&r.Username, "REDIS_USERNAME", "", "user to log in as")
	s.String(&r.Password, "REDIS_PASSWORD", "", "password to log in with; other users of the machine can see flags, so prefer the variable")
	s.String(&r.SentinelUsername, "REDIS_SENTINEL_USERNAME", "", "user to log in to the Sentinels as")
	s.String(&r.SentinelPassword, "REDIS_SENTINEL_PASSWORD", "", "password to log in to the Sentinels with")
	s.Int(&r.DB, "REDIS_DB", 0, "database number")
	s.Bool(&r.UseTLS, "REDIS_TLS", "use TLS for the connections to Redis and to the Sentinels")
	s.String(&r.TLS.CAFile, "REDIS_TLS_CA_FILE", "", "PEM file of the CA certificates to trust; empty means those of the system")
	s.String(&r.TLS.CertFile, "REDIS_TLS_CERT_FILE", "", "PEM file of the client certificate; like the other TLS files, it is reloaded when it changes")
	s.String(&r.TLS.KeyFile, "REDIS_TLS_KEY_FILE", "", "PEM file of the client certificate's key")
	s.String(&r.TLS.ServerName, "REDIS_TLS_SERVER_NAME", "", "host name that the servers' certificates must carry; empty means the host of the address")
	s.String(&r.Channel, "CACHE_CHANNEL", "posts_updates", "Pub/Sub channel of the updates; must be the same in all processes")
	s.String(&r.Namespace, "CACHE_NAMESPACE", "posts", "first part of every key in Redis; must be the same in all processes")
}

// Validate expands REDIS_ADDR if it is a URL, and reports a setting that is invalid.
func (r *Redis) Validate() error {
	if err := r.expandURL(); err != nil {
		return fmt.Errorf("REDIS_ADDR: %w", err)
	}
	tls := r.TLS.CAFile + r.TLS.CertFile + r.TLS.KeyFile + r.TLS.ServerName
	switch {
	case r.Username != "" && r.Password == "":
		return fmt.Errorf("REDIS_USERNAME without REDIS_PASSWORD: set both")
	case r.SentinelUsername != "" && r.SentinelPassword == "":
		return fmt.Errorf("REDIS_SENTINEL_USERNAME without REDIS_SENTINEL_PASSWORD: set both")
	case r.SentinelPassword != "" && r.MasterName == "":
		return fmt.Errorf("REDIS_SENTINEL_PASSWORD without REDIS_MASTER_NAME: set the name of the primary, or remove the password")
	case tls != "" && !r.UseTLS:
		return fmt.Errorf("REDIS_TLS_* is set without REDIS_TLS=true: the connections would not be encrypted")
	}
	if err := protocol.CheckNamespace(r.Namespace); err != nil {
		return fmt.Errorf("CACHE_NAMESPACE: %w", err)
	}
	finder, err := redisnode.New(r.Finder())
	if err != nil {
		return fmt.Errorf("check REDIS_ADDR and the other REDIS_* settings: %w", err)
	}
	return finder.Close()
}

// expandURL replaces a URL in Addr by the address and settings that it contains. Settings that are already set take
// precedence.
func (r *Redis) expandURL() error {
	r.Addr = slices.Clone(r.Addr) // other configurations may share it
	for i, addr := range r.Addr {
		r.Addr[i] = strings.TrimPrefix(strings.TrimPrefix(addr, "unix://"), "unix:")
	}
	at := strings.Join(r.Addr, ",")
	if !strings.Contains(at, "://") {
		return nil
	}
	if len(r.Addr) > 1 {
		return errors.New("write several addresses as host:port, without redis://")
	}
	o, err := redis.ParseURL(at)
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // drops the URL, which may contain a password
	}
	if err != nil {
		return err
	}
	r.Addr = []string{o.Addr}
	r.Username, r.Password, r.DB = cmp.Or(r.Username, o.Username), cmp.Or(r.Password, o.Password), cmp.Or(r.DB, o.DB)
	r.UseTLS = r.UseTLS || o.TLSConfig != nil
	return nil
}

// Finder returns the configuration of a Finder for this Redis.
func (r *Redis) Finder() redisnode.Config {
	c := redisnode.Config{
		Addrs: r.Addr, MasterName: r.MasterName,
		Username: r.Username, Password: r.Password, DB: r.DB,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		Key: protocol.ShardKey(r.Namespace),
	}
	if r.UseTLS {
		c.TLS = &r.TLS
	}
	return c
}
