// Package load is the load generator of the demo: it reads posts through the gateway, and writes posts, at bounded
// rates, and counts every read that failed for its client. The benchmark has a load generator of its own, for limits.
package load

import (
	"errors"
	"fmt"
	"strings"

	"heavy-read-api/internal/daemon"
)

// Bounds of the rates, per second. They leave most of a small machine to the stack.
const (
	MaxReads  = 5000
	MaxWrites = 200
)

// Defaults of the rates, per second.
const (
	DefaultReads  = 400
	DefaultWrites = 10
)

// Config configures a generator.
type Config struct {
	daemon.Common
	Gateway string // base URL of the gateway
	Writer  string // base URL of the writer
	Token   string // WRITER_TOKEN of the writer, "" for none
	Reads   int    // reads per second
	Writes  int    // writes per second
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("load", getenv)
	c.Register(s, 3001)
	s.String(&c.Gateway, "GATEWAY_URL", "http://localhost:9080", "base URL of the gateway")
	s.String(&c.Writer, "WRITER_URL", "http://localhost:8080", "base URL of the writer")
	s.String(&c.Token, "WRITER_TOKEN", "", "token of the writer")
	s.Int(&c.Reads, "LOAD_READS", DefaultReads, fmt.Sprintf("reads per second, 1 to %d", MaxReads))
	s.Int(&c.Writes, "LOAD_WRITES", DefaultWrites, fmt.Sprintf("writes per second, 0 to %d", MaxWrites))
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	return c, errors.Join(c.Common.Validate(), c.Validate())
}

// Validate reports a rate that is out of range. It also trims the URLs.
func (c *Config) Validate() error {
	c.Gateway, c.Writer = strings.TrimSuffix(c.Gateway, "/"), strings.TrimSuffix(c.Writer, "/")
	if c.Reads < 1 || c.Reads > MaxReads {
		return fmt.Errorf("LOAD_READS=%d: use 1 to %d reads per second", c.Reads, MaxReads)
	}
	if c.Writes < 0 || c.Writes > MaxWrites {
		return fmt.Errorf("LOAD_WRITES=%d: use 0 to %d writes per second", c.Writes, MaxWrites)
	}
	return nil
}
