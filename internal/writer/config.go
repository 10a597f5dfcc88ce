// Package writer accepts posts, encodes each one once and publishes it to the readers. It has no cache, because another
// writer may change a post at any time.
package writer

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
)

// Config configures a writer.
type Config struct {
	redisconfig.Data
	ReaderURL string   // URL under which clients read posts, such as http://localhost:9080; "" if unknown
	Token     string   // bearer token that writes require; "" for none
	Hosts     []string // host names accepted without a token, besides addresses, localhost and names without a dot
	LogLength int64    // minimum number of entries in the log in Redis; 0 means publisher.DefaultLogLength
	// MetricsPort is the TCP port of /health, /ready, /status and /metrics; 0 serves them on Port. If MetricsListening
	// is set, it is called once with the bound address, and a MetricsPort of 0 picks a free port instead.
	MetricsPort      int
	MetricsListening func(addr string)
	Replicas         int // number of Redis replicas that must acknowledge a write before it counts as written
	// ConsistencyCookie sets the cookie httpkit.VersionCookie in the answers to writes.
	ConsistencyCookie bool
	// Timeout bounds a write; 1.5 s by default. After a lost reply a quarter more is spent on checking the outcome, so
	// that clients get their answers within 2 s.
	Timeout time.Duration

	patience time.Duration // see defaultPatience; set by tests
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("writer", getenv)
	c.Register(s, 8080)
	s.String(&c.Token, "WRITER_TOKEN", "", "bearer token that every write must carry; empty requires none")
	s.List(&c.Hosts, "ALLOWED_HOSTS", nil, "host names under which writes are accepted while WRITER_TOKEN is empty; addresses, localhost and names without a dot are always accepted")
	s.String(&c.ReaderURL, "READER_URL", "", "URL under which clients read posts, such as http://localhost:9080: GET and HEAD /post are redirected there; empty answers them with 405")
	s.Int64(&c.LogLength, "CACHE_LOG_LENGTH", publisher.DefaultLogLength, "minimum number of writes that the log in Redis keeps, so that readers can catch up; about 50 bytes each")
	s.Int(&c.MetricsPort, "METRICS_PORT", 0, "TCP port of /health, /ready, /status and /metrics, for use when PORT is public; 0 serves them on PORT")
	s.Int(&c.Replicas, "WRITE_REPLICAS", 0, "number of Redis replicas that must acknowledge a write before the writer reports success; with fewer, the answer is 503 and the outcome unknown")
	s.Bool(&c.ConsistencyCookie, "CONSISTENCY_COOKIE", "set a cookie with the version of each write, so that the reads of a browser for the next minute include its own writes")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	c.ReadyPort = c.MetricsPort
	return c, c.complete()
}

// complete sets the defaults and reports a setting that is invalid.
func (c *Config) complete() error {
	if err := c.Data.Complete(); err != nil {
		return err
	}
	for i := range len(c.Token) {
		if c.Token[i] < '!' || c.Token[i] > '~' {
			return errors.New("WRITER_TOKEN cannot be sent in a header: use visible ASCII characters without spaces")
		}
	}
	for i, name := range c.Hosts {
		c.Hosts[i] = strings.ToLower(strings.TrimSuffix(name, "."))
		if strings.ContainsAny(name, ":/*") {
			return fmt.Errorf("ALLOWED_HOSTS contains %q: list only host names, such as posts.example.org, without scheme, port or wildcard", name)
		}
	}
	if c.ReaderURL != "" {
		var err error
		if c.ReaderURL, err = cleanReaderURL(c.ReaderURL); err != nil {
			return err
		}
	}
	if c.LogLength < 0 {
		return errors.New("CACHE_LOG_LENGTH is negative: use at least the number of writes during a snapshot, such as 1000000")
	}
	if c.MetricsPort < 0 || c.MetricsPort > 65535 {
		return fmt.Errorf("METRICS_PORT=%d: a TCP port is between 0 and 65535", c.MetricsPort)
	}
	if c.MetricsPort != 0 && c.MetricsPort == c.Port {
		return fmt.Errorf("METRICS_PORT=%d is also PORT: choose another, or 0 to serve everything on PORT", c.MetricsPort)
	}
	if c.Replicas < 0 {
		return errors.New("WRITE_REPLICAS is negative: use the number of Redis replicas that must acknowledge each write, or 0")
	}
	c.Timeout = cmp.Or(c.Timeout, 1500*time.Millisecond)
	return nil
}
