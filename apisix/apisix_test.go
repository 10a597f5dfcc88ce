package apisix

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/redisconfig"
)

// configuration is the schema of config.yaml, limited to the keys in use. APISIX ignores unknown keys silently, so
// decoding is strict.
type configuration struct {
	Deployment struct {
		Role          string
		RoleDataPlane struct {
			ConfigProvider string `yaml:"config_provider"`
		} `yaml:"role_data_plane"`
	}
	APISIX struct {
		NodeListen   []address `yaml:"node_listen"`
		SSL          struct{ Enable bool }
		ServerTokens *bool `yaml:"enable_server_tokens"`
	}
	Plugins       []string
	StreamPlugins *[]string `yaml:"stream_plugins"`
	PluginAttr    struct {
		Prometheus struct {
			ExportAddr      address `yaml:"export_addr"`
			RefreshInterval int     `yaml:"refresh_interval"`
			Metrics         struct {
				UpstreamStatus struct{ Expire int } `yaml:"upstream_status"`
			}
		}
	} `yaml:"plugin_attr"`
	NginxConfig struct {
		WorkerProcesses       int    `yaml:"worker_processes"`
		WorkerShutdownTimeout string `yaml:"worker_shutdown_timeout"`
		ErrorLog              string `yaml:"error_log"`
		ErrorLogLevel         string `yaml:"error_log_level"`
		Event                 struct {
			WorkerConnections int `yaml:"worker_connections"`
		}
		Snippet string `yaml:"http_configuration_snippet"`
		HTTP    struct {
			EnableAccessLog bool   `yaml:"enable_access_log"`
			MaxBody         string `yaml:"client_max_body_size"`
			HeaderTimeout   string `yaml:"client_header_timeout"`
			BodyTimeout     string `yaml:"client_body_timeout"`
			SendTimeout     string `yaml:"send_timeout"`
			Keepalive       string `yaml:"keepalive_timeout"`
			Upstream        struct {
				Keepalive int
				Timeout   string `yaml:"keepalive_timeout"`
				Requests  int    `yaml:"keepalive_requests"`
			}
		}
	} `yaml:"nginx_config"`
}

type address struct {
	IP   string
	Port int
}

// routesFile is the schema of apisix.yaml, limited to the members in use. APISIX drops an item with an unknown member
// and logs that only at run time, so decoding is strict.
type routesFile struct {
	Routes      []route
	Upstreams   []upstream
	GlobalRules []struct {
		ID      string
		Plugins map[string]map[string]any
	} `yaml:"global_rules"`
}

type route struct {
	ID, Name, URI string
	Methods       []string
	UpstreamID    string `yaml:"upstream_id"`
	Timeout       *struct{ Connect, Send, Read float64 }
}

type upstream struct {
	ID, Name, Type, Scheme string
	PassHost               string `yaml:"pass_host"`
	UpstreamHost           string `yaml:"upstream_host"`
	Nodes                  []node
	KeepalivePool          struct {
		Size, Requests int
		IdleTimeout    int `yaml:"idle_timeout"`
	} `yaml:"keepalive_pool"`
	Retries      int
	RetryTimeout float64 `yaml:"retry_timeout"`
	Timeout      struct{ Connect, Send, Read float64 }
	Checks       checks
}

type node struct {
	Host         string
	Port, Weight int
}

type checks struct {
	Active struct {
		Type      string
		HTTPPath  string `yaml:"http_path"`
		Timeout   float64
		Healthy   struct{ Interval, Successes int }
		Unhealthy failures
	}
	Passive struct {
		Type      string
		Healthy   struct{ Successes *int }
		Unhealthy failures
	}
}

type failures struct {
	Interval     int
	HTTPStatuses []int `yaml:"http_statuses"`
	HTTPFailures *int  `yaml:"http_failures"`
	TCPFailures  int   `yaml:"tcp_failures"`
	Timeouts     *int
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// parse decodes YAML into T and rejects keys that T does not have.
func parse[T any](content string) (*T, error) {
	d := yaml.NewDecoder(strings.NewReader(content))
	d.KnownFields(true)
	v := new(T)
	return v, d.Decode(v)
}

// check returns an error for each rule of APISIX or of the readers that the two files break.
func check(config, routes string) error {
	var faults []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	c, err := parse[configuration](config)
	if err != nil {
		return err
	}
	rule(c.Deployment.Role == "data_plane" && c.Deployment.RoleDataPlane.ConfigProvider == "yaml", "not standalone")
	for _, line := range []string{"role: data_plane", "role_data_plane:", "config_provider: yaml"} {
		rule(strings.Contains(config, line), "the entrypoint of the image requires the words %q", line)
	}
	rule(slices.Equal(c.APISIX.NodeListen, []address{{"0.0.0.0", 9080}}), "node_listen is %v", c.APISIX.NodeListen)
	rule(c.PluginAttr.Prometheus.ExportAddr == address{"0.0.0.0", 9091}, "metrics on %v: other containers cannot reach them", c.PluginAttr.Prometheus.ExportAddr)
	rule(c.NginxConfig.HTTP.MaxBody == "16k", "bodies of up to %s", c.NginxConfig.HTTP.MaxBody)
	rule(strings.Contains(c.NginxConfig.Snippet, "large_client_header_buffers 1 16k;"), "a header line may be shorter than the 16 KiB that readers accept")
	rule(c.NginxConfig.ErrorLog == "stderr", "error_log is %s: nginx exits if its user may not open that file", c.NginxConfig.ErrorLog)
	rule(c.APISIX.ServerTokens != nil && !*c.APISIX.ServerTokens, "the Server header contains the version")
	rule(c.StreamPlugins != nil && len(*c.StreamPlugins) == 0, "plugins for TCP streams are loaded")

	// APISIX looks for the marker in the last ten bytes.
	rule(regexp.MustCompile(`#END\s*$`).MatchString(routes[max(0, len(routes)-10):]), "no #END")
	f, err := parse[routesFile](routes)
	if err != nil {
		return errors.Join(append(faults, err)...)
	}
	id := regexp.MustCompile(`^[a-zA-Z0-9-_.]{1,64}$`)
	upstreams := map[string]bool{}
	for _, u := range f.Upstreams {
		rule(id.MatchString(u.ID) && !upstreams[u.ID], "upstream id %q", u.ID)
		upstreams[u.ID] = true
		checkUpstream(&u, rule)
	}
	seen := map[string]bool{}
	for _, r := range f.Routes {
		rule(id.MatchString(r.ID) && !seen[r.ID], "route id %q", r.ID)
		seen[r.ID] = true
		rule(r.Name == r.ID && r.URI == "/"+r.Name, "route %s: its name in the metrics is %q, its path is %s", r.ID, r.Name, r.URI)
		methods := []string{"GET", "HEAD"}
		if r.ID != "health" {
			methods = append(methods, "OPTIONS")
		}
		rule(slices.Equal(r.Methods, methods), "route %s: methods %v", r.ID, r.Methods)
		if r.ID == "changes" {
			rule(r.Timeout != nil && r.Timeout.Connect == 1 && r.Timeout.Send == 1 && r.Timeout.Read > 30,
				"route %s: timeout %+v, a poll waits for up to 30 s", r.ID, r.Timeout)
		} else {
			rule(r.Timeout == nil, "route %s: timeout %+v", r.ID, r.Timeout)
		}
		rule(upstreams[r.UpstreamID], "route %s: there is no upstream %q", r.ID, r.UpstreamID)
	}
	used := map[string]bool{}
	for _, r := range f.GlobalRules {
		rule(id.MatchString(r.ID), "rule id %q", r.ID)
		for name := range r.Plugins {
			used[name] = true
			rule(slices.Contains(c.Plugins, name), "plugin %s is used but not loaded: APISIX drops its rule", name)
		}
		rule(r.Plugins["prometheus"]["prefer_name"] == true, "the metrics do not contain the names of the routes")
	}
	rule(used["prometheus"] && used["request-id"], "plugins in use: %v", used)
	return errors.Join(faults...)
}

func checkUpstream(u *upstream, rule func(bool, string, ...any)) {
	rule(u.Type == "roundrobin" && u.Scheme == "http", "upstream is %s, %s", u.Type, u.Scheme)
	rule(u.PassHost == "rewrite" && u.UpstreamHost != "", "pass_host is %s: a request without a Host reaches a reader without one", u.PassHost)
	rule(u.Retries == 2, "retries: %d", u.Retries)
	rule(u.Timeout.Connect > 0 && u.Timeout.Send > 0 && u.Timeout.Read > 0, "a timeout is 0")
	rule(u.RetryTimeout > u.Timeout.Read, "retry_timeout %v is not above the read timeout %v: a reader that hangs exhausts it", u.RetryTimeout, u.Timeout.Read)
	rule(u.KeepalivePool.Size > 0 && u.KeepalivePool.Requests > 1000, "keepalive pool %+v", u.KeepalivePool)
	rule(u.KeepalivePool.IdleTimeout < 75, "connections are kept for %d s: the readers close them after 75", u.KeepalivePool.IdleTimeout)
	for _, n := range u.Nodes {
		rule(net.ParseIP(n.Host) != nil && n.Port > 0 && n.Weight == 1, "node %+v", n)
	}

	active, passive := &u.Checks.Active, &u.Checks.Passive
	rule(active.Type == "http" && active.HTTPPath == "/ready", "active check: %s %s", active.Type, active.HTTPPath)
	rule(active.Timeout > 0 && active.Healthy.Interval >= 1 && active.Healthy.Successes >= 1, "active check %+v", active)
	rule(active.Unhealthy.Interval >= 1 && active.Unhealthy.TCPFailures >= 1 && active.Unhealthy.Timeouts != nil && *active.Unhealthy.Timeouts >= 1, "active check %+v", active.Unhealthy)
	rule(active.Unhealthy.HTTPStatuses == nil, "active check: http_statuses is set, but the default already includes 503")
	if failures := active.Unhealthy.HTTPFailures; failures == nil || *failures < 1 {
		rule(false, "active check: a reader that answers 503 stays in rotation")
	} else {
		out := time.Duration(*failures*active.Unhealthy.Interval) * time.Second
		rule(out < httpkit.Drain, "a stopping reader serves for %v but is ejected only after %v", httpkit.Drain, out)
	}
	rule(passive.Type == "http", "passive check: %s", passive.Type)
	rule(passive.Healthy.Successes != nil && *passive.Healthy.Successes == 0, "passive check: successful reads put a reader that is not ready back into rotation")
	rule(passive.Unhealthy.HTTPStatuses == nil && passive.Unhealthy.HTTPFailures != nil && *passive.Unhealthy.HTTPFailures == 0,
		"passive check: a 503 of a reader ejects it")
	rule(passive.Unhealthy.Timeouts != nil && *passive.Unhealthy.Timeouts == 0, "passive check: timeouts caused by many clients eject readers")
	rule(passive.Unhealthy.TCPFailures >= 1 && passive.Unhealthy.Interval == 0, "passive check %+v", passive.Unhealthy)
}

func TestConfiguration(t *testing.T) {
	if err := check(read(t, "config.yaml"), read(t, "apisix.yaml")); err != nil {
		t.Error(err)
	}
}

// TestVolumeNameHasTheTagOfTheImage: a new volume is filled from the image, so a volume that an older image has filled
// would hide the files of a newer one.
func TestVolumeNameHasTheTagOfTheImage(t *testing.T) {
	compose := read(t, "../docker-compose.yaml")
	image := regexp.MustCompile(`image: apache/apisix:(\S+)`).FindStringSubmatch(compose)
	if image == nil {
		t.Fatal("docker-compose.yaml has no APISIX image")
	}
	for _, want := range []string{"      - apisix-conf-" + image[1] + ":/usr/local/apisix/conf\n", "  apisix-conf-" + image[1] + ": {}\n"} {
		if !strings.Contains(compose, want) {
			t.Errorf("docker-compose.yaml does not contain %q", want)
		}
	}
}

// TestDashboardKnowsTheRefresh: the dashboard computes rates over the time between two updates of APISIX's metrics.
func TestDashboardKnowsTheRefresh(t *testing.T) {
	c, err := parse[configuration](read(t, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("      GATEWAY_METRICS_REFRESH: %ds ", c.PluginAttr.Prometheus.RefreshInterval); !strings.Contains(read(t, "../docker-compose.yaml"), want) {
		t.Errorf("docker-compose.yaml does not contain %q", want)
	}
}

// TestCheckRefuses breaks each rule and checks that check reports it.
func TestCheckRefuses(t *testing.T) {
	config, routes := read(t, "config.yaml"), read(t, "apisix.yaml")
	for _, test := range []struct{ old, new string }{
		{"role: data_plane", "role: traditional"},
		{"config_provider: yaml", "config_provider: etcd"},
		{"    - ip: 0.0.0.0", "    - ip: 127.0.0.1"},
		{"      ip: 0.0.0.0 #", "      ip: 127.0.0.1 #"},
		{"      port: 9091", "      port: 9092"},
		{"  - prometheus\n", ""},
		{"client_max_body_size: 16k", "client_max_body_size: 0"},
		{"    large_client_header_buffers 1 16k;\n", ""},
		{"large_client_header_buffers 1 16k;", "large_client_header_buffers 2 8k;"},
		{"error_log: stderr", "error_log: /dev/stderr"},
		{"enable_server_tokens: false", "enable_server_tokens: true"},
		{"  enable_server_tokens: false #", "server_tokens: false #"},
		{"stream_plugins: []", "stream_plugins: [syslog]"},
		{"stream_plugins: []", "stream_plugin: []"},
		{"worker_shutdown_timeout: 8s", "worker_shutdown_timout: 8s"},
		{"refresh_interval: 5", "refresh: 5"},
		{"pass_host: rewrite", "pass_host: pass"},
		{"    upstream_host: reader\n", ""},
		{"#END", "#End"},
		{"#END\n", "#END\n# and a long line after it\n"},
		{"uri: /post-redis", "uris: /post-redis"},
		{"uri: /post-redis", "uri: /post_redis"},
		{"methods: [GET, HEAD]", "methods: [GET]"},
		{"upstream_id: reader", "upstream_id: readers"},
		{"  - id: post-marshal", "  - id: post-redis"},
		{"type: roundrobin", "type: least_conn"},
		{"nodes: []", `nodes: [{host: reader, port: 80, weight: 1}]`},
		{"nodes: []", `nodes: {"reader:80": 1}`},
		{"retries: 2", "retries: 0"},
		{"retry_timeout: 3", "retry_timeout: 1"},
		{"timeout: {connect: 1, send: 1, read: 60}", "timeout: {connect: 1, send: 1, read: 6}"},
		{"read: 1}", "read: 0}"},
		{"idle_timeout: 60,", "idle_timeout: 80,"},
		{"http_path: /ready", "http_path: /health"},
		{"unhealthy: {interval: 1, http_failures: 2", "unhealthy: {interval: 1, http_failures: 3"},
		{"unhealthy: {interval: 1, http_failures: 2", "unhealthy: {interval: 2, http_failures: 2"},
		{"unhealthy: {interval: 1, http_failures: 2, ", "unhealthy: {interval: 1, "},
		{"healthy: {successes: 0}", "healthy: {}"},
		{"healthy: {successes: 0}", "healthy: {successes: 1}"},
		{"{http_failures: 0,", "{http_failures: 3,"},
		{"{http_failures: 0,", "{"},
		{"{http_failures: 0,", "{http_failures: 0, http_statuses: [500],"},
		{"{http_failures: 0, tcp_failures: 2, timeouts: 0}", "{http_failures: 0, tcp_failures: 0, timeouts: 0}"},
		{"tcp_failures: 2, timeouts: 0}", "tcp_failures: 2, timeouts: 3}"},
		{"tcp_failures: 2, timeouts: 0}", "tcp_failures: 2}"},
		{"prefer_name: true", "prefer_name: false"},
		{"      request-id: {include_in_response: true}\n", ""},
		{"      prometheus: {prefer_name: true}", "      cors: {}"},
	} {
		c, r := strings.Replace(config, test.old, test.new, 1), strings.Replace(routes, test.old, test.new, 1)
		switch {
		case c == config && r == routes:
			t.Errorf("%q is in neither file", test.old)
		case check(c, r) == nil:
			t.Errorf("%q instead of %q breaks no rule", test.new, test.old)
		}
	}
}

// TestRoutesOfReader requests each path that the gateway forwards from a reader.
func TestRoutesOfReader(t *testing.T) {
	f, err := parse[routesFile](read(t, "apisix.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	cfg := reader.Config{Data: redisconfig.Data{Drain: -1}, PodID: "reader"}
	cfg.Host, cfg.Listening = "127.0.0.1", func(addr string) { listening <- addr }
	cfg.Redis.Addr, cfg.Redis.Channel, cfg.Redis.Namespace = []string{"127.0.0.1:1"}, "updates", "posts" // Redis is not needed
	stopped := make(chan error, 1)
	go func() { stopped <- reader.Run(t.Context(), cfg) }() // t.Context is cancelled before Cleanup functions run
	t.Cleanup(func() {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	var addr string
	select {
	case addr = <-listening:
	case err := <-stopped:
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("the reader is not listening")
	}
	status := func(method, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	for _, r := range f.Routes {
		want := http.StatusBadRequest // a post without an id
		switch r.Name {
		case "health", "openapi.yaml":
			want = http.StatusOK
		case "posts", "changes":
			want = http.StatusServiceUnavailable // without a snapshot
		}
		for _, method := range r.Methods {
			want := want
			if r.Name == "changes" && method == http.MethodHead {
				want = http.StatusMethodNotAllowed
			}
			if method == http.MethodOptions {
				want = http.StatusMethodNotAllowed // without CORS_ALLOW_ORIGIN
			}
			if got := status(method, r.URI); got != want {
				t.Errorf("%s %s: status %d, want %d", method, r.URI, got, want)
			}
		}
	}
	check := f.Upstreams[0].Checks.Active.HTTPPath
	if got := status(http.MethodGet, check); got != http.StatusServiceUnavailable {
		t.Errorf("a reader without a snapshot answers the check %s with %d", check, got)
	}
	if got := status(http.MethodGet, "/unknown"); got != http.StatusNotFound {
		t.Errorf("a reader answers an unknown path with %d", got)
	}
}
