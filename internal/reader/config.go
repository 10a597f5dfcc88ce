// Package reader serves posts over HTTP from memory, where it keeps a replica of the posts in Redis.
package reader

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
)

// Config configures a reader.
type Config struct {
	redisconfig.Data
	PodID    string         // name of this reader in X-Served-By, /ready and /status; default the host name
	ReadFrom redisnode.Role // role of the Redis server to read from; default redisnode.Primary
	// AllowOrigin is the origin whose web pages may read posts through CORS: "*" for all origins, "" for
	// none.
	AllowOrigin string
	// MaxFollowers bounds the clients that follow /changes at the same time; default half of the connections.
	MaxFollowers  int
	ChangesWindow int64              // bound of the changes that are kept in memory for them, in bytes; default 8 MiB
	Local         store.Config       // zero fields get the defaults of package cache
	File          replica.FileConfig // zero fields get the defaults; Deployment is set from Redis
	Scrub         time.Duration      // time in which the scrub reads all posts once; 0 means replica.DefaultScrub, negative no scrub
}

// ParseConfig reads the configuration from flags and environment variables.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("reader", getenv)
	c.Register(s, 80)
	s.String(&c.PodID, "POD_ID", "", "name of this reader in X-Served-By; default: the host name")
	s.String((*string)(&c.ReadFrom), "REDIS_READ_FROM", string(redisnode.Primary), "role of the Redis server to read from: primary, or replica to take load off the primary")
	s.String(&c.AllowOrigin, "CORS_ALLOW_ORIGIN", "", "origin whose web pages may read posts, such as https://www.example.org, or * for all; empty allows none")
	s.Bytes(&c.Local.MaxSize, "CACHE_MAX_SIZE", 512<<20, "memory limit for posts")
	s.Int64(&c.Local.NumCounters, "CACHE_NUM_COUNTERS", 1_000_000, "counters of the admission policy, about one per expected post")
	s.Int64(&c.Local.BufferItems, "CACHE_BUFFER_ITEMS", 64, "size of the Get buffers of the admission policy")
	s.String(&c.File.Folder, "CACHE_SNAPSHOT_DIR", "", "folder of the snapshot file, from which the reader starts, also while Redis is unreachable; readers of one data set may share it; empty: no file")
	s.Duration(&c.File.Interval, "CACHE_SNAPSHOT_INTERVAL", 5*time.Minute, "time between two saves of the snapshot file")
	s.String(&c.File.Deployment, "CACHE_SNAPSHOT_SOURCE", "", "name of the Redis deployment in the snapshot file, which is ignored for another one; empty: the addresses, the name of the primary and the database")
	s.Duration(&c.File.MaxAge, "CACHE_SNAPSHOT_MAX_AGE", 24*time.Hour, "age from which a snapshot file is ignored")
	scrub := int(replica.DefaultScrub / time.Second)
	s.Int(&scrub, "SCRUB_SECONDS", scrub, "time in which the scrub compares all posts in memory with their digests once, in seconds; 0 disables it")
	s.Int(&c.MaxFollowers, "CHANGES_MAX_FOLLOWERS", 0, "clients that may follow /changes at the same time; 0 means half of the connections")
	s.Bytes(&c.ChangesWindow, "CHANGES_WINDOW", 8<<20, "memory for the newest changes; older ones are read from Redis's log")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	if scrub < 0 {
		return Config{}, fmt.Errorf("SCRUB_SECONDS=%d: use 0 or more", scrub)
	}
	if c.Scrub = time.Duration(scrub) * time.Second; scrub == 0 {
		c.Scrub = -1
	}
	return c, c.complete()
}

// complete sets the defaults and validates the configuration.
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
	if c.MaxFollowers < 0 {
		return fmt.Errorf("CHANGES_MAX_FOLLOWERS=%d: use 0 for half of the connections, or a number of clients", c.MaxFollowers)
	}
	if c.ChangesWindow < 0 || c.ChangesWindow > 0 && c.ChangesWindow < 64<<10 {
		return fmt.Errorf("CHANGES_WINDOW=%d: use at least 64 KiB", c.ChangesWindow)
	}
	given := c.Local
	var err error
	if c.Local, err = given.WithDefaults(); err != nil {
		return fmt.Errorf("CACHE_MAX_SIZE=%d, CACHE_NUM_COUNTERS=%d, CACHE_BUFFER_ITEMS=%d: %w",
			given.MaxSize, given.NumCounters, given.BufferItems, err)
	}
	c.File.Deployment = cmp.Or(c.File.Deployment, deployment(&c.Redis))
	if err := c.File.Complete(); err != nil {
		return fmt.Errorf("CACHE_SNAPSHOT_DIR=%s, CACHE_SNAPSHOT_INTERVAL=%v, CACHE_SNAPSHOT_MAX_AGE=%v: %w",
			c.File.Folder, c.File.Interval, c.File.MaxAge, err)
	}
	if c.PodID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("set POD_ID, because the host name is not available: %w", err)
		}
		c.PodID = host
	}
	if !validPodID(c.PodID) {
		return fmt.Errorf("POD_ID=%q: use 1 to 128 visible ASCII characters without spaces", c.PodID)
	}
	return nil
}

// deployment identifies a Redis deployment by its settings, without credentials. The order of several addresses does
// not matter.
func deployment(r *redisconfig.Redis) string {
	addrs := slices.Sorted(slices.Values(r.Addr))
	return fmt.Sprintf("%s, primary %q, database %d", strings.Join(addrs, ","), r.MasterName, r.DB)
}

// validPodID reports whether id is a valid value of an HTTP header.
func validPodID(id string) bool {
	for i := range len(id) {
		if id[i] < '!' || id[i] > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 128
}
