package stack

import (
	"fmt"
	"os"
	"strconv"
)

// Roles of processes. Each is also the first argument with which the program runs as one.
const (
	roleRedis    = "redis"
	roleSentinel = "sentinel" // has no such argument: it is a program of Redis
	roleWriter   = "writer"
	roleReader   = "reader"
	roleGateway  = "gateway"
)

const gatewayMetricsPath = "/apisix/prometheus/metrics"

// child returns the spec of a process that is this very program in another role.
func (c *Config) child(role, name string, ports ...port) (spec, error) {
	path, err := self()
	if err != nil {
		return spec{}, fmt.Errorf("find the running program: %w", err)
	}
	return spec{
		name: name, role: role, ports: ports,
		path: path,
		// The port is an argument so that ps tells the processes apart.
		argv:    []string{"local", role, "-port=" + strconv.Itoa(ports[0].number)},
		env:     c.childEnv(),
		metrics: "http://" + address(ports[0].number) + "/metrics",
		check:   checkHTTP("http://" + address(ports[0].number) + "/ready"),
		notable: notable,
	}, nil
}

// embeddedLog is the length of the log in the embedded Redis, which walks all of it at each write.
const embeddedLog = 10_000

func (c *Config) writer() (spec, error) {
	s, err := c.child(roleWriter, "writer", port{c.WriterPort, "WRITER_PORT"})
	if _, set := os.LookupEnv("CACHE_LOG_LENGTH"); !set && c.ownRedis() && c.embedded() {
		s.env = append(s.env, "CACHE_LOG_LENGTH="+strconv.Itoa(embeddedLog))
	}
	if getenv(c.env, "READER_URL") == "" {
		s.env = append(s.env, "READER_URL=http://"+address(c.GatewayPort))
	}
	return s, err
}

// reader returns the spec of the n-th reader in rotation, from 1.
func (c *Config) reader(n int) (spec, error) {
	return c.namedReader(fmt.Sprintf("reader-%d", n), port{c.ReaderPort + n - 1, "READER_PORT"})
}

func (c *Config) direct() (spec, error) {
	return c.namedReader("reader-direct", port{c.DirectPort, "DIRECT_PORT"})
}

func (c *Config) namedReader(name string, p port) (spec, error) {
	s, err := c.child(roleReader, name, p)
	s.argv = append(s.argv, "-pod-id="+name)
	return s, err
}

func (c *Config) gateway() (spec, error) {
	metrics := address(c.GatewayMetricsPort)
	s, err := c.child(roleGateway, "gateway",
		port{c.GatewayPort, "GATEWAY_PORT"}, port{c.GatewayMetricsPort, "GATEWAY_METRICS_PORT"})
	s.env = append(s.env, "METRICS_PORT="+strconv.Itoa(c.GatewayMetricsPort))
	s.metrics = "http://" + metrics + gatewayMetricsPath
	s.check = checkHTTP("http://" + metrics + "/ready")
	return s, err
}
