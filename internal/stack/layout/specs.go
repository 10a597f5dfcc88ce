package layout

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// GatewayMetricsPath is the path of the gateway's metrics, as APISIX has it.
const GatewayMetricsPath = "/apisix/prometheus/metrics"

// NodesFile is the file in the run folder with the readers that the gateway uses, one host:port per line. The
// gateway reads it twice a second.
const NodesFile = "readers"

// SnapshotFolder is the folder in the run folder where the readers keep their snapshot file.
const SnapshotFolder = "snapshot"

// child returns the spec of a process that is this program in another role.
func (c *Config) child(role, name string, ports ...supervisor.Port) (supervisor.Spec, error) {
	path, err := supervisor.Self()
	if err != nil {
		return supervisor.Spec{}, fmt.Errorf("find the running program: %w", err)
	}
	return supervisor.Spec{
		Name: name, Role: role, Ports: ports,
		Path: path,
		// The port is an argument so that the processes differ in ps.
		Argv:    []string{"local", role, "-port=" + strconv.Itoa(ports[0].Number)},
		Env:     c.childEnv(),
		Metrics: "http://" + supervisor.Address(ports[0].Number) + "/metrics",
		Check:   health.HTTP("http://" + supervisor.Address(ports[0].Number) + "/ready"),
		Notable: notable,
	}, nil
}

// embeddedLog is the length of the log in the embedded Redis, which iterates over all of it at each write.
const embeddedLog = 10_000

func (c *Config) writer() (supervisor.Spec, error) {
	s, err := c.child(state.Writer, "writer", supervisor.Port{Number: c.WriterPort, Env: "WRITER_PORT"})
	if _, set := os.LookupEnv("CACHE_LOG_LENGTH"); !set && c.OwnRedis() && c.embedded() {
		s.Env = append(s.Env, "CACHE_LOG_LENGTH="+strconv.Itoa(embeddedLog))
	}
	if Getenv(c.Env, "READER_URL") == "" {
		s.Env = append(s.Env, "READER_URL=http://"+supervisor.Address(c.GatewayPort))
	}
	return s, err
}

// Reader returns the spec of the n-th reader in rotation, from 1.
func (c *Config) Reader(n int) (supervisor.Spec, error) {
	return c.namedReader(fmt.Sprintf("reader-%d", n), supervisor.Port{Number: c.ReaderPort + n - 1, Env: "READER_PORT"})
}

func (c *Config) direct() (supervisor.Spec, error) {
	return c.namedReader("reader-direct", supervisor.Port{Number: c.DirectPort, Env: "DIRECT_PORT"})
}

func (c *Config) namedReader(name string, p supervisor.Port) (supervisor.Spec, error) {
	s, err := c.child(state.Reader, name, p)
	s.Argv = append(s.Argv, "-pod-id="+name)
	_, chosen := lookupEnv(c.Env, "CACHE_SNAPSHOT_DIR")       // an empty one turns the file off
	if err != nil || chosen || c.OwnRedis() && c.embedded() { // the embedded Redis keeps nothing either
		return s, err
	}
	s.Env = append(s.Env, "CACHE_SNAPSHOT_DIR="+c.File(SnapshotFolder))
	if Getenv(c.Env, "CACHE_SNAPSHOT_SOURCE") == "" { // the address of the reader's relay changes with each start
		s.Env = append(s.Env, "CACHE_SNAPSHOT_SOURCE="+strings.Join(c.Server().Addrs, ","))
	}
	return s, nil
}

// auditor returns the spec of the auditor, which finds the readers in rotation in the gateway's list.
func (c *Config) auditor() (supervisor.Spec, error) {
	s, err := c.child(state.Auditor, "auditor", supervisor.Port{Number: c.AuditorPort, Env: "AUDITOR_PORT"})
	s.Env = append(s.Env, "AUDIT_READERS="+supervisor.Address(c.DirectPort), "AUDIT_READERS_FILE="+c.File(NodesFile))
	return s, err
}

func (c *Config) gateway() (supervisor.Spec, error) {
	metrics := supervisor.Address(c.GatewayMetricsPort)
	s, err := c.child(state.Gateway, "gateway",
		supervisor.Port{Number: c.GatewayPort, Env: "GATEWAY_PORT"}, supervisor.Port{Number: c.GatewayMetricsPort, Env: "GATEWAY_METRICS_PORT"})
	s.Env = append(s.Env, "METRICS_PORT="+strconv.Itoa(c.GatewayMetricsPort))
	s.Metrics = "http://" + metrics + GatewayMetricsPath
	s.Check = health.HTTP("http://" + metrics + "/ready")
	return s, err
}

// LoadGenerator returns the spec of the load generator, which sends reads to the gateway and writes to the writer, at
// rates per second.
func (c *Config) LoadGenerator(reads, writes int) (supervisor.Spec, error) {
	s, err := c.child(state.Load, "load", supervisor.Port{Number: c.LoadPort, Env: "LOAD_PORT"})
	s.Env = append(s.Env,
		"GATEWAY_URL=http://"+supervisor.Address(c.GatewayPort), "WRITER_URL=http://"+supervisor.Address(c.WriterPort),
		"LOAD_READS="+strconv.Itoa(reads), "LOAD_WRITES="+strconv.Itoa(writes))
	return s, err
}

// notable reports whether a log line of this project's programs is for the terminal: a warning, an error, or no log
// line at all, such as a panic.
func notable(line string) bool {
	return !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=DEBUG")
}

// notableRedis is notable for redis-server, which marks its warnings with a #.
func notableRedis(line string) bool { return strings.Contains(line, " # ") }
