package layout

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// prometheusSetup returns a configuration with a Prometheus that exists, on a free port.
func prometheusSetup(t *testing.T) *Config {
	t.Helper()
	c := testConfig(t)
	c.RunDir = t.TempDir()
	if err := rundir.Make(c.RunDir); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", supervisor.Address(0))
	if err != nil {
		t.Fatal(err)
	}
	c.PrometheusPort = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	c.PrometheusServer = filepath.Join(t.TempDir(), "prometheus")
	if err := os.WriteFile(c.PrometheusServer, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &c
}

// A stack without Prometheus says why, and starts nevertheless.
func TestNoPrometheus(t *testing.T) {
	c := prometheusSetup(t)
	if _, ok, why, err := c.Prometheus(); !ok || why != "" || err != nil {
		t.Errorf("%v %q %v, want a Prometheus", ok, why, err)
	}
	ln, err := net.Listen("tcp", supervisor.Address(c.PrometheusPort))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	busy := fmt.Sprintf("port %d is in use and prometheus needs it", c.PrometheusPort)
	for server, want := range map[string]string{
		c.PrometheusServer: busy, NoPrometheus: "PROMETHEUS_SERVER=none", "no-such-prometheus": "there is no no-such-prometheus on the PATH",
	} {
		c.PrometheusServer = server
		if _, ok, why, err := c.Prometheus(); ok || !strings.HasPrefix(why, want) || err != nil {
			t.Errorf("%s: %v %q %v, want %q", server, ok, why, err, want)
		}
	}
}

// Prometheus accepts the configuration, and the targets have the jobs of the rules and the names of the processes.
func TestPrometheusConfiguration(t *testing.T) {
	c := prometheusSetup(t)
	if _, ok, _, err := c.Prometheus(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	process := func(name, role, env, metrics string) *supervisor.Process {
		return &supervisor.Process{Spec: supervisor.Spec{Name: name, Role: role, Metrics: metrics, Ports: []supervisor.Port{{Number: 1, Env: env}}}}
	}
	err := c.ListTargets([]*supervisor.Process{
		process("redis", state.Redis, "REDIS_PORT", ""), process("reader-1", state.Reader, "READER_PORT", "http://127.0.0.1:8082/metrics"),
		process("reader-direct", state.Reader, "DIRECT_PORT", "http://127.0.0.1:8081/metrics"),
		process("gateway", state.Gateway, "GATEWAY_PORT", "http://127.0.0.1:9091"+GatewayMetricsPath),
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(c.File(prometheusTargets))
	if err != nil {
		t.Fatal(err)
	}
	var targets []target
	if err := json.Unmarshal(text, &targets); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range targets[1:] { // after Prometheus itself
		got = append(got, strings.Join([]string{x.Labels["job"], x.Labels["instance"], x.Targets[0] + x.Labels["__metrics_path__"]}, " "))
	}
	want := "reader reader-1 127.0.0.1:8082/metrics; reader-direct reader-direct 127.0.0.1:8081/metrics; apisix gateway 127.0.0.1:9091" + GatewayMetricsPath
	if strings.Join(got, "; ") != want {
		t.Errorf("targets %q, want %q", got, want)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool not on PATH")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", c.File(prometheusConfig)).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
