package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestParseConfig(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want string // "port metrics-port readers file"
		err  string
	}{
		{"defaults", map[string]string{"GATEWAY_READERS": "a:1,b:2"}, nil, "9080 9091 [a:1 b:2] ", ""},
		{"only a file", nil, []string{"-gateway-nodes-file=/x/nodes"}, "9080 9091 [] /x/nodes", ""},
		{"both, and other ports", map[string]string{"PORT": "1", "METRICS_PORT": "2", "GATEWAY_READERS": "a:1"},
			[]string{"-gateway-nodes-file=f", "-metrics-port=3"}, "1 3 [a:1] f", ""},
		{"no readers", nil, nil, "", "GATEWAY_READERS or GATEWAY_NODES_FILE"},
		{"bad reader", nil, []string{"-gateway-readers=a"}, "", "write host:port"},
		{"reader twice", nil, []string{"-gateway-readers=a:1,a:1"}, "", "listed twice"},
		{"bad port", nil, []string{"-gateway-readers=a:1", "-port=70000"}, "", "PORT=70000"},
		{"bad metrics port", nil, []string{"-gateway-readers=a:1", "-metrics-port=-1"}, "", "METRICS_PORT=-1"},
		{"one port for both", nil, []string{"-gateway-readers=a:1", "-metrics-port=9080"}, "", "choose another"},
		{"unknown flag", nil, []string{"-gateway-reader=a:1"}, "", "gateway-reader"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := ParseConfig(test.args, func(name string) string { return test.env[name] })
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if got := fmt.Sprint(cfg.Port, cfg.MetricsPort, cfg.Readers, " ", cfg.NodesFile); err == nil && got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if cfg.ReadyPort != cfg.MetricsPort {
				t.Errorf("-health uses port %d, but /ready is on %d", cfg.ReadyPort, cfg.MetricsPort)
			}
		})
	}
}

func TestRunRejectsInvalidConfigurations(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	inUse := Config{Readers: []string{"127.0.0.1:1"}}
	inUse.Host = "127.0.0.1"
	inUse.Port = port
	metricsInUse := inUse
	metricsInUse.Port, metricsInUse.MetricsPort = 0, port
	for name, test := range map[string]struct {
		cfg Config
		err string
	}{
		"no readers":          {Config{}, "no readers"},
		"port in use":         {inUse, "address already in use"},
		"metrics port in use": {metricsInUse, "address already in use"},
	} {
		if err := Run(context.Background(), test.cfg); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	readers, addrs := newReaders(t, 2)
	g := start(t, Config{Readers: addrs})
	g.awaitReady(t, 2)
	if r := g.readiness(t); r.code != http.StatusOK || r.Status != "ready" || r.Readers != 2 || len(r.Reasons) != 0 {
		t.Errorf("all ready: %+v", r)
	}
	readers[0].notReady.Store(true)
	g.awaitReady(t, 1)
	reason := addrs[0] + ": GET /ready answered 503 Service Unavailable"
	if r := g.readiness(t); r.code != http.StatusOK || r.Status != "ready" || !slices.Equal(r.Reasons, []string{reason}) {
		t.Errorf("one ready: %+v", r)
	}
	readers[1].notReady.Store(true)
	g.awaitReady(t, 0)
	if r := g.readiness(t); r.code != http.StatusServiceUnavailable || r.Status == "ready" || len(r.Reasons) != 2 {
		t.Errorf("none ready: %+v", r)
	}
	if res, _ := do(t, http.MethodGet, "http://"+g.metrics+"/health", nil); res.StatusCode != http.StatusOK {
		t.Errorf("GET /health: %s, want 200", res.Status)
	}
}
