// Package gateway stands in for APISIX where there is no Docker, and in tests: it spreads reads over
// the readers that are ready, repeats a failed read on other readers, and counts what it does
// under the metric names of APISIX.
package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"heavy-read-api/internal/daemon"
)

// maxNodes bounds the list of readers: each costs a request a second for its check.
const maxNodes = 256

// Config is how a gateway runs. Zero durations mean their defaults.
type Config struct {
	daemon.Common
	Readers     []string // host:port of the readers to start with
	NodesFile   string   // file that lists the readers and is followed; "" follows none
	MetricsPort int      // TCP port of metrics and readiness; 0 picks a free one
	// MetricsListening, when set, is called once with the bound address of MetricsPort.
	MetricsListening func(addr string)

	CheckInterval  time.Duration // pause between two checks of a reader, 1 s by default
	ReloadInterval time.Duration // pause between two looks at NodesFile, 500 ms by default
	Timeout        time.Duration // bound of a connect, of the wait for a response header and of a check, 1 s by default
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("gateway", getenv)
	c.Register(s, 9080)
	s.List(&c.Readers, "GATEWAY_READERS", nil, "readers to start with, host:port, comma-separated")
	s.String(&c.NodesFile, "GATEWAY_NODES_FILE", "", "file with one reader (host:port) a line, which is followed; replace it by a rename")
	s.Int(&c.MetricsPort, "METRICS_PORT", 9091, "TCP port of the metrics")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	c.ReadyPort = c.MetricsPort
	return c, c.validate()
}

func (c *Config) validate() error {
	if err := c.Common.Validate(); err != nil {
		return err
	}
	if c.MetricsPort < 0 || c.MetricsPort > 65535 {
		return fmt.Errorf("METRICS_PORT=%d: a TCP port is between 0 and 65535", c.MetricsPort)
	}
	if c.MetricsPort != 0 && c.MetricsPort == c.Port {
		return fmt.Errorf("METRICS_PORT=%d is PORT too: choose another", c.MetricsPort)
	}
	if len(c.Readers) == 0 && c.NodesFile == "" {
		return errors.New("no readers: set GATEWAY_READERS or GATEWAY_NODES_FILE")
	}
	if err := validNodes(c.Readers); err != nil {
		return fmt.Errorf("GATEWAY_READERS: %w", err)
	}
	return nil
}

func (c *Config) setDefaults() {
	c.CheckInterval = cmp.Or(c.CheckInterval, time.Second)
	c.ReloadInterval = cmp.Or(c.ReloadInterval, 500*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validNodes reports an address that is no host:port or stands twice in the list: a reader that
// counted twice would get twice the share.
func validNodes(addrs []string) error {
	if len(addrs) > maxNodes {
		return fmt.Errorf("%d readers: at most %d can be listed", len(addrs), maxNodes)
	}
	seen := make(map[string]bool, len(addrs))
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
			return fmt.Errorf("%q is not a reader's address: write host:port, such as 127.0.0.1:8082", addr)
		}
		if seen[addr] {
			return fmt.Errorf("%q is listed twice", addr)
		}
		seen[addr] = true
	}
	return nil
}
