// Package auditor compares the readers with each other and with Redis, while they run and while writes go on, and has a
// reader that differs load a snapshot.
package auditor

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/redisconfig"
)

// Config configures an auditor.
type Config struct {
	redisconfig.Data
	Readers     []string // host:port of readers; each address of a name counts as a reader
	ReadersFile string   // file with the host:port of more readers, one per line; may change at any time; "" for none
	// ScanRate is the number of keys per second that the auditor reads from Redis; 0 means defaultScanRate.
	ScanRate int64
	// ScanPause is the time between two scans of Redis; 0 means defaultScanPause.
	ScanPause time.Duration
	Every     time.Duration // time between two comparisons; 0 means one second
	Local     store.Config  // bounds the auditor's own memory
}

const (
	defaultPort      = 9093
	defaultScanRate  = 10_000
	defaultScanPause = time.Minute
	defaultMemory    = 128 << 20 // in bytes; the checksums of a million posts with ids of 36 bytes take 90 MB
)

// ParseConfig reads the configuration from flags and environment variables.
func ParseConfig(args []string, getenv func(string) string) (Config, error) {
	var c Config
	s := daemon.NewSettings("auditor", getenv)
	c.Register(s, defaultPort)
	s.List(&c.Readers, "AUDIT_READERS", nil, "host:port of the readers to compare; each address of a host name counts as a reader")
	s.String(&c.ReadersFile, "AUDIT_READERS_FILE", "", "file with the host:port of more readers, one per line, which is read before each comparison")
	s.Int64(&c.ScanRate, "AUDIT_SCAN_RATE", defaultScanRate, "keys per second that the auditor reads from Redis")
	s.Bytes(&c.Local.MaxSize, "AUDIT_MAX_SIZE", defaultMemory, "memory limit for the checksums of the posts")
	if err := s.Parse(args); err != nil {
		return Config{}, err
	}
	return c, c.complete()
}

// complete sets the defaults and validates the configuration.
func (c *Config) complete() error {
	if err := c.Data.Complete(); err != nil {
		return err
	}
	if len(c.Readers) == 0 && c.ReadersFile == "" {
		return errors.New("no readers to compare: set AUDIT_READERS or AUDIT_READERS_FILE")
	}
	for _, addr := range c.Readers {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return fmt.Errorf("AUDIT_READERS=%s: write host:port, such as reader:80", addr)
		}
	}
	c.ScanRate = cmp.Or(c.ScanRate, defaultScanRate)
	c.ScanPause = cmp.Or(c.ScanPause, defaultScanPause)
	c.Every = cmp.Or(c.Every, time.Second)
	if c.ScanRate < 1 {
		return fmt.Errorf("AUDIT_SCAN_RATE=%d: use at least 1", c.ScanRate)
	}
	c.Local.Checksums = true
	c.Local.MaxSize = cmp.Or(c.Local.MaxSize, defaultMemory)
	var err error
	if c.Local, err = c.Local.WithDefaults(); err != nil {
		return fmt.Errorf("AUDIT_MAX_SIZE: %w", err)
	}
	return nil
}
