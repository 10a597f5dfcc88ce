// Package writer takes posts, encodes each once and publishes it to the readers. It keeps no cache:
// what it reads back would be older than what another writer has just published.
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

// Config is how a writer runs.
type Config struct {
	redisconfig.Data
	ReaderURL string   // where clients read posts, such as http://localhost:9080; "" when the writer does not know
	Token     string   // bearer token that writes need; "" asks for none
	Hosts     []string // names in Host that writes may have without a token, besides addresses and names without a dot
	LogLength int64    // entries of the log in Redis that are kept at least; 0 is the default of package cache
	// MetricsPort is the TCP port of /health, /ready, /status and /metrics; 0 has them on Port. MetricsListening,
	// when set, is called once with its bound address; 0 picks a free port then.
	MetricsPort      int
	MetricsListening func(addr string)
	Replicas         int           // Redis replicas that must confirm a write before it is answered as written
	Timeout          time.Duration // bound of a write, 1.5 s by default: with a quarter more after a lost reply, and all the rest, the client has its answer within 2 s

	patience time.Duration // see defaultPatience; set by tests
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("writer", getenv)
	c.Register(s, 8080)
	s.String(&c.Token, "WRITER_TOKEN", "", "bearer token that every write needs; empty asks for none")
	s.List(&c.Hosts, "ALLOWED_HOSTS", nil, "host names under which writes are taken while WRITER_TOKEN is empty; addresses, localhost and names without a dot always are")
	s.String(&c.ReaderURL, "READER_URL", "", "where clients read posts, such as http://localhost:9080: GET and HEAD /post are redirected there; empty answers them with 405")
	s.Int64(&c.LogLength, "CACHE_LOG_LENGTH", publisher.DefaultLogLength, "writes that the log in Redis keeps at least, for readers to catch up with; about 50 bytes each")
	s.Int(&c.MetricsPort, "METRICS_PORT", 0, "TCP port of /health, /ready and /metrics, for a PORT that others than operators can reach; 0 has them on PORT")
	s.Int(&c.Replicas, "WRITE_REPLICAS", 0, "Redis replicas that must have a write before it is answered as written; with fewer the answer is 503, outcome unknown")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	c.ReadyPort = c.MetricsPort
	return c, c.complete()
}

// complete fills in the defaults and reports a setting that cannot work.
func (c *Config) complete() error {
	if err := c.Data.Complete(); err != nil {
		return err
	}
	for i := range len(c.Token) {
		if c.Token[i] < '!' || c.Token[i] > '~' {
			return errors.New("WRITER_TOKEN cannot stand in a header: use visible ASCII characters without spaces")
		}
	}
	for i, name := range c.Hosts {
		c.Hosts[i] = strings.ToLower(strings.TrimSuffix(name, "."))
		if strings.ContainsAny(name, ":/*") {
			return fmt.Errorf("ALLOWED_HOSTS has %q: write names alone, such as posts.example.org, without scheme, port or pattern", name)
		}
	}
	if c.ReaderURL != "" {
		var err error
		if c.ReaderURL, err = cleanReaderURL(c.ReaderURL); err != nil {
			return err
		}
	}
	if c.LogLength < 0 {
		return errors.New("CACHE_LOG_LENGTH is below 0: use at least as many as there are writes while a reader loads, such as 1000000")
	}
	if err := c.ValidateMetricsPort(c.MetricsPort); err != nil {
		return err
	}
	if c.Replicas < 0 {
		return errors.New("WRITE_REPLICAS is below 0: use the number of Redis replicas that must have each write, or 0")
	}
	c.Timeout = cmp.Or(c.Timeout, 1500*time.Millisecond)
	return nil
}
