// Package gateway is a stand-in for APISIX, for machines without Docker and for tests. It balances reads over the ready
// readers, retries a failed read on other readers, and exports metrics under the names that APISIX uses.
//
// Plain reads of /post are served by the fast lane (package fastlane): one goroutine per client connection parses the
// request, forwards it over a pooled connection to a reader and relays the answer. Every other request goes through
// net/http and then takes the same path to the readers.
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

// maxNodes is the maximum number of readers. Each one costs a health check per second.
const maxNodes = 256

// Config configures a gateway. A zero duration selects the default.
type Config struct {
	daemon.Common
	Readers     []string // initial readers, as host:port
	NodesFile   string   // path of a file that lists the readers and is polled for changes; "" for none
	MetricsPort int      // TCP port of metrics and readiness; 0 picks a free port
	// MetricsListening, if set, is called once with the bound address of MetricsPort.
	MetricsListening func(addr string)

	CheckInterval  time.Duration // time between two checks of a reader; 1 s by default
	ReloadInterval time.Duration // time between two reads of NodesFile; 500 ms by default
	Timeout        time.Duration // timeout of a connect, of a response header and of a check; 1 s by default
}

// ParseConfig reads a configuration from flags and environment.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("gateway", getenv)
	c.Register(s, 9080)
	s.List(&c.Readers, "GATEWAY_READERS", nil, "initial readers, host:port, comma-separated")
	s.String(&c.NodesFile, "GATEWAY_NODES_FILE", "", "file with one reader (host:port) per line, polled for changes; replace it with a rename")
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
	if err := c.ValidateMetricsPort(c.MetricsPort); err != nil {
		return err
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

// validNodes returns an error if an address is not host:port or is listed twice: a reader listed twice would get twice
// its share of the reads.
func validNodes(addrs []string) error {
	if len(addrs) > maxNodes {
		return fmt.Errorf("%d readers are listed: the maximum is %d", len(addrs), maxNodes)
	}
	seen := make(map[string]bool, len(addrs))
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" || n == 0 {
			return fmt.Errorf("%q is not the address of a reader: write host:port, such as 127.0.0.1:8082", addr)
		}
		if seen[addr] {
			return fmt.Errorf("%q is listed twice", addr)
		}
		seen[addr] = true
	}
	return nil
}
