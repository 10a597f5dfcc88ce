// Package reader serves posts from the memory of its process: a replica of what Redis has.
package reader

import (
	"fmt"
	"os"

	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
)

// Config is how a reader runs. Zero fields of Local mean the defaults of package cache.
type Config struct {
	redisconfig.Data
	PodID    string // names this reader in its answers
	ReadFrom redisnode.Role
	// AllowOrigin is the origin whose pages may read posts in a browser: "*" for every one, "" for none but
	// the reader's own.
	AllowOrigin string
	Local       store.Config
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("reader", getenv)
	c.Register(s, 80)
	s.String(&c.PodID, "POD_ID", "", "name of this reader in X-Served-By; empty stands for the host name")
	s.String((*string)(&c.ReadFrom), "REDIS_READ_FROM", string(redisnode.Primary), "what to read from: primary, or replica for a Redis replica that relays to many readers")
	s.String(&c.AllowOrigin, "CORS_ALLOW_ORIGIN", "", "origin whose web pages may read posts, such as https://www.example.org, or * for all; empty allows none")
	s.Bytes(&c.Local.MaxSize, "CACHE_MAX_SIZE", 512<<20, "most memory that posts may take")
	s.Int64(&c.Local.NumCounters, "CACHE_NUM_COUNTERS", 1_000_000, "counters of the admission policy, about one for each expected post")
	s.Int64(&c.Local.BufferItems, "CACHE_BUFFER_ITEMS", 64, "size of the Get buffers of the admission policy")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	return c, c.complete()
}

// complete fills in the defaults and reports a setting that cannot work.
func (c *Config) complete() error {
	if err := c.Data.Complete(); err != nil {
		return err
	}
	if c.ReadFrom != redisnode.Primary && c.ReadFrom != redisnode.Replica && c.ReadFrom != "" {
		return fmt.Errorf("REDIS_READ_FROM=%s: use %s or %s", c.ReadFrom, redisnode.Primary, redisnode.Replica)
	}
	if err := checkOrigin(c.AllowOrigin); err != nil {
		return err
	}
	given := c.Local
	var err error
	if c.Local, err = given.WithDefaults(); err != nil {
		return fmt.Errorf("CACHE_MAX_SIZE=%d, CACHE_NUM_COUNTERS=%d, CACHE_BUFFER_ITEMS=%d: %w",
			given.MaxSize, given.NumCounters, given.BufferItems, err)
	}
	if c.PodID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("POD_ID is empty, and the host name cannot be had: %w", err)
		}
		c.PodID = host
	}
	if !validPodID(c.PodID) {
		return fmt.Errorf("POD_ID=%q: use 1 to 128 visible ASCII characters without spaces", c.PodID)
	}
	return nil
}

// validPodID reports whether an id can stand in a header.
func validPodID(id string) bool {
	for i := range len(id) {
		if id[i] < '!' || id[i] > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 128
}
