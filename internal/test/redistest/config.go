package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func (s *Server) configFile() string { return filepath.Join(s.dir, "redis.conf") }

// writeConfig writes redis.conf before the first start. Later starts keep the file, because CONFIG REWRITE,
// which a Sentinel calls at each change of role, may have changed it.
func (s *Server) writeConfig() error {
	if err := os.WriteFile(s.configFile(), []byte(s.config()), 0o600); err != nil {
		return fmt.Errorf("write redis.conf: %w", err)
	}
	return nil
}

func (s *Server) config() string {
	lines := []string{
		"bind 127.0.0.1",
		"dir " + strconv.Quote(s.dir),
		`logfile ""`,
	}
	lines = append(lines, s.portConfig()...)
	lines = append(lines, s.announceConfig()...)
	if s.opts.sentinel != nil {
		lines = append(lines, s.sentinelConfig()...)
	} else {
		lines = append(lines,
			"appendonly yes",
			"appendfsync always",
			`save ""`,
			"repl-diskless-sync-delay 0", // by default a full synchronization waits 5 s for more replicas
			"repl-ping-replica-period 1",
		)
	}
	if s.opts.cluster != noCluster {
		lines = append(lines, s.clusterConfig()...)
	}
	if s.opts.primary != "" {
		host, port, _ := net.SplitHostPort(s.opts.primary)
		lines = append(lines, "replicaof "+host+" "+port)
	}
	lines = append(lines, s.opts.config...)
	return strings.Join(lines, "\n") + "\n"
}

func (s *Server) portConfig() []string {
	var lines []string
	if s.socket != "" {
		lines = append(lines, "unixsocket "+strconv.Quote(s.socket))
	}
	port := strconv.Itoa(s.port.number)
	if s.opts.ca == nil {
		return append(lines, "port "+port)
	}
	lines = append(lines, s.opts.tlsConfig()...)
	return append(lines, "port "+port, "tls-port "+strconv.Itoa(s.tlsPort.number))
}
