package reader

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
)

func TestParseConfig(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want string // part of the error, "" for none
	}{
		{"defaults", nil, nil, ""},
		{"all", nil, map[string]string{
			"REDIS_ADDR": "a:1", "REDIS_PASSWORD": "p", "REDIS_DB": "2", "PORT": "81", "POD_ID": "r-1", "CACHE_CHANNEL": "c",
			"CACHE_NAMESPACE": "n", "CACHE_MAX_SIZE": "1048576", "CACHE_NUM_COUNTERS": "10", "CACHE_BUFFER_ITEMS": "32", "LOG_LEVEL": "debug",
		}, ""},
		{"flag", []string{"-cache-max-size=65536", "-pod-id", "x"}, map[string]string{"CACHE_MAX_SIZE": "2"}, ""},
		{"size", nil, map[string]string{"CACHE_MAX_SIZE": "-1"}, `CACHE_MAX_SIZE="-1": write a number of bytes`},
		{"size that is too small", nil, map[string]string{"CACHE_MAX_SIZE": "10"}, "cache size of 10 bytes: use at least 65536"},
		{"size that overflows", nil, map[string]string{"CACHE_MAX_SIZE": "10EB"}, `CACHE_MAX_SIZE="10EB": write a number of bytes`},
		{"size with an unknown unit", nil, map[string]string{"CACHE_MAX_SIZE": "512 bananas"}, `CACHE_MAX_SIZE="512 bananas": write a number of bytes`},
		{"counters", nil, map[string]string{"CACHE_NUM_COUNTERS": "-1"}, "CACHE_NUM_COUNTERS"},
		{"buffer", nil, map[string]string{"CACHE_BUFFER_ITEMS": "-64"}, "CACHE_BUFFER_ITEMS"},
		{"port", nil, map[string]string{"PORT": "70000"}, "PORT=70000: a TCP port is between"},
		{"pod with a space", nil, map[string]string{"POD_ID": "a b"}, `POD_ID="a b": use`},
		{"pod with a line end", nil, map[string]string{"POD_ID": "a\r\nX: y"}, "POD_ID"},
		{"long pod", nil, map[string]string{"POD_ID": strings.Repeat("x", 129)}, "POD_ID"},
		{"address", nil, map[string]string{"REDIS_ADDR": "a"}, "REDIS_ADDR"},
		{"level", nil, map[string]string{"LOG_LEVEL": "loud"}, "LOG_LEVEL"},
		{"argument", []string{"x"}, nil, "unexpected argument"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig(tt.args, func(name string) string { return tt.env[name] })
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if err == nil && (c.PodID == "" || c.Drain != httpkit.Drain) {
				t.Errorf("incomplete: %+v", c)
			}
		})
	}
	c, err := ParseConfig(tests[2].args, func(name string) string { return tests[2].env[name] })
	if err != nil || c.Local.MaxSize != 65536 || c.PodID != "x" || c.Port != 80 || !slices.Equal(c.Redis.Addr, []string{"127.0.0.1:6379"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSizesHaveUnits(t *testing.T) {
	for text, want := range map[string]int64{"536870912": 512 << 20, "512MB": 512_000_000, "512MiB": 512 << 20, "1GiB": 1 << 30, "1 gib": 1 << 30, "1.5GB": 1_500_000_000, "": 512 << 20} {
		c, err := ParseConfig(nil, func(name string) string { return map[string]string{"CACHE_MAX_SIZE": text}[name] })
		if err != nil || c.Local.MaxSize != want {
			t.Errorf("CACHE_MAX_SIZE=%s: %d, %v, want %d", text, c.Local.MaxSize, err, want)
		}
	}
}

func TestSnapshotFileSettings(t *testing.T) {
	folder := t.TempDir()
	for _, tt := range []struct{ dir, interval, age, want string }{
		{folder, "", "", ""},
		{"", "", "", ""},
		{folder, "90s", "2h", ""},
		{os.Args[0] + "/none", "", "", "CACHE_SNAPSHOT_DIR"},
		{folder, "5", "", "with a unit"},
		{folder, "-5s", "", "positive"},
		{folder, "2h", "1h", "larger"},
		{folder, "1ms", "", "at least 1s"},
	} {
		env := map[string]string{"CACHE_SNAPSHOT_DIR": tt.dir, "CACHE_SNAPSHOT_INTERVAL": tt.interval, "CACHE_SNAPSHOT_MAX_AGE": tt.age,
			"REDIS_ADDR": "redis://user:secret@redis:6379/2"}
		c, err := ParseConfig(nil, func(name string) string { return env[name] })
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt, err, tt.want)
		}
		if err == nil && (strings.Contains(c.File.Deployment, "secret") || !strings.Contains(c.File.Deployment, "redis:6379") || !strings.Contains(c.File.Deployment, "2")) {
			t.Errorf("deployment %q", c.File.Deployment)
		}
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	cfg := Config{Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{"127.0.0.1:1"}}}, PodID: "x"}
	cfg.Port, _ = strconv.Atoi(port)
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("error %v, want it to contain the port %s", err, port)
	}
}

func TestCacheTooSmall(t *testing.T) {
	cfg := Config{Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{"127.0.0.1:1"}}}, PodID: "x", Local: store.Config{MaxSize: 1}}
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "at least 65536") {
		t.Errorf("error %v", err)
	}
}

// TestStop checks an orderly stop: the reader reports that it is not ready, keeps serving during the drain,
// reads that wait for an update included, and exits.
func TestStop(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	publish(t, p, post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr(), func(c *Config) { c.Drain = 2 * time.Second })

	stopping := func(want string) {
		t.Helper()
		if body := string(r.wantStatus(t, "/metrics", 200).body); !strings.Contains(body, "\nreader_stopping "+want+"\n") {
			t.Errorf("reader_stopping is not %s", want)
		}
	}
	stopping("0")
	if body := string(r.wantStatus(t, "/metrics", 200).body); !strings.Contains(body, "\nreader_info{pod_id=") {
		t.Error("the metrics do not name the reader")
	}
	began := time.Now()
	r.Stop()
	r.waitReady(t, "stopping")
	stopping("1")
	r.wantStatus(t, "/ready", 503)
	r.wantStatus(t, "/health", 200)
	r.wantStatus(t, "/post?id=a", 200)
	next := publish(t, p, post.Post{ID: "a", Title: "written while stopping"})
	if res := r.wantStatus(t, "/post?id=a", 200, "X-Min-Version", next.token.String()); string(res.body) != string(next.body) {
		t.Errorf("%s", res.body)
	}
	if err := <-r.Done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if _, err := servicetest.Client.Get(r.URL + "/health"); err == nil {
		t.Error("the port still answers")
	}
}

// TestStopFinishesRequests stops a reader without a drain while reads wait for a Redis that does not reply.
// Each read still gets a response.
func TestStopFinishesRequests(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	proxy := faultnet.NewProxy(t, b.Addr())
	r := startReady(t, proxy.Addr())

	const readers = 8
	asked := make([]*faultnet.Hook, readers)
	for i := range asked {
		asked[i] = proxy.OnceContains(faultnet.ToServer, "{posts:0}:p:a\r\n", faultnet.SwallowReply)
	}
	answers := make(chan string, readers)
	for range readers {
		go func() {
			res, err := servicetest.Client.Get(r.URL + "/post-redis?id=a")
			if err != nil {
				answers <- err.Error()
				return
			}
			res.Body.Close()
			answers <- res.Status
		}()
	}
	for _, hook := range asked {
		<-hook.Fired()
	}
	r.Stop()
	for range readers {
		if got := <-answers; got != "503 Service Unavailable" {
			t.Error(got)
		}
	}
}

func (r *instance) metrics(t testing.TB) map[string]*dto.MetricFamily {
	t.Helper()
	res := r.do(t, "GET", "/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(res.body))
	if err != nil || res.status != http.StatusOK {
		t.Fatalf("/metrics: %d, %v", res.status, err)
	}
	return families
}

func TestMetrics(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	w := publish(t, p, post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	for range 3 {
		r.wantStatus(t, "/post?id=a", 200)
	}
	r.wantStatus(t, "/post?id=a", 304, "If-None-Match", w.etag)
	r.wantStatus(t, "/post?id=b", 404)
	r.wantStatus(t, "/post-redis?id=a", 200)
	r.wantStatus(t, "/post-marshal?id=a", 200)
	r.do(t, "HEAD", "/post?id=a")
	r.do(t, "BREW", "/post?id=a")
	r.wantStatus(t, "/made/up/by/a/client", 404)

	var all map[string]*dto.MetricFamily
	count := func(name string, labels ...string) (total float64) {
		for _, m := range all[name].GetMetric() {
			match := 0
			for _, l := range m.GetLabel() {
				for i := 0; i < len(labels); i += 2 {
					if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
						match += 2
					}
				}
			}
			if match == len(labels) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return total
	}
	wants := []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "http_requests_total", []string{"route", "/post", "method", "get", "code", "200"}},
		{1, "http_requests_total", []string{"route", "/post", "method", "get", "code", "304"}},
		{1, "http_requests_total", []string{"route", "/post", "method", "get", "code", "404"}},
		{1, "http_requests_total", []string{"route", "/post", "method", "head", "code", "200"}},
		{1, "http_requests_total", []string{"route", "/post", "code", "405"}},
		{1, "http_requests_total", []string{"route", "/post-redis", "code", "200"}},
		{1, "http_requests_total", []string{"route", "/post-marshal", "code", "200"}},
		{1, "http_requests_total", []string{"route", "other", "code", "404"}},
		{float64(len(w.body)), "http_response_body_bytes_total", []string{"route", "/post-redis"}},
		{7, "cache_hits_total", nil}, // 3 + 304 + 404 + marshal + HEAD
		{0, "cache_misses_total", nil},
		{1, "cache_entries", nil},
		{1, "cache_ready", nil},
		{1, "service_info", []string{"service", "reader"}},
	}
	eventually.Nil(t, func() error { // a request is counted just after its response was written
		all = r.metrics(t)
		for _, tt := range wants {
			if got := count(tt.name, tt.labels...); got != tt.want {
				return fmt.Errorf("%s%v is %v, want %v", tt.name, tt.labels, got, tt.want)
			}
		}
		return nil
	})
	for _, name := range []string{
		"http_request_duration_seconds", "cache_propagation_seconds", "cache_applied_version", "cache_newest_version", "cache_lag_versions", "cache_lag_seconds",
		"cache_messages_total", "cache_bytes", "cache_max_bytes", "cache_evictions_total", "cache_rejections_total",
		"cache_file_timestamp_seconds", "cache_file_bytes", "cache_file_saves_total", "cache_from_file",
		"cache_fallbacks_total", "cache_complete", "cache_synced", "cache_subscribed", "go_goroutines", "process_cpu_seconds_total",
		"redis_moves_total", "redis_server_found", "http_connections", "http_connections_max", "http_connections_refused_total",
	} {
		if all[name] == nil {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestStatus(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		publish(t, p, post.Post{ID: "a", Title: "t"})
		w := publish(t, p, post.Post{ID: "b", Title: "t"})
		r := startReady(t, b.Addr())
		var s report
		eventually.Nil(t, func() error {
			res := r.do(t, "GET", "/status")
			if err := json.Unmarshal(res.body, &s); err != nil || s.Subscription != "live" {
				return fmt.Errorf("%s, %v", res.body, err)
			}
			return nil
		})
		if s.Bytes <= 0 || s.MaxBytes <= s.Bytes || s.Reasons == nil {
			t.Errorf("%+v", s)
		}
		if b.Real() == (s.Redis.Product == "") {
			t.Errorf("Redis is %+v", s.Redis)
		}
		if d := s.Digest; d == nil || d.Version != s.AppliedVersion || d.Epoch != s.Epoch || len(d.Value) != 16 || len(d.WriteID) != 16 {
			t.Errorf("the digest is %+v", d)
		}
		s.Bytes, s.MaxBytes, s.Reasons, s.Redis.Product, s.Digest = 0, 0, nil, "", nil
		want := report{
			PodID: "reader-under-test", Ready: true, Epoch: strings.Split(w.token.String(), "-")[0], AppliedVersion: 2, NewestVersion: 2,
			Entries: 2, Complete: true, Synced: true, Subscription: "live",
			Redis: redisnode.Server{Addr: b.Addr(), Role: redisnode.Primary},
		}
		if fmt.Sprint(s) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", s, want)
		}
	})
}

func TestProgress(t *testing.T) {
	if p := progress(nil); p != nil {
		t.Errorf("%+v", p)
	}
	began := time.Now().Add(-time.Minute)
	if p := progress(&replica.SnapshotProgress{Total: 10, Began: began}); p.SecondsLeft != nil {
		t.Errorf("%v seconds left before the first post, want no estimate", *p.SecondsLeft)
	}
	p := progress(&replica.SnapshotProgress{Loaded: 25, Total: 100, Began: began})
	if p.Loaded != 25 || p.Total != 100 || *p.SecondsLeft < 180 {
		t.Errorf("%+v, %v seconds left, want at least 180", p, *p.SecondsLeft)
	}
	// The total is an estimate and can be too low.
	p = progress(&replica.SnapshotProgress{Loaded: 101, Total: 100, Began: began})
	if p.Total != 101 || *p.SecondsLeft != 0 {
		t.Errorf("%+v, %v seconds left", p, *p.SecondsLeft)
	}
}

// TestPasswordIsNotLogged starts a reader with a wrong password and checks that it appears nowhere.
func TestPasswordIsNotLogged(t *testing.T) {
	b := redistest.StartEmbeddedWithPassword(t, "the right one")
	var log logtest.Buffer
	r := start(t, b.Addr(), func(c *Config) {
		c.Redis.Password = "a-wrong-secret"
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	eventually.Nil(t, func() error {
		if !strings.Contains(log.String(), "subscription lost") {
			return errors.New("no failure in the log: " + log.String())
		}
		return nil
	})
	r.wantUnavailable(t, "/post-redis?id=a", "id")
	answers := string(r.do(t, "GET", "/ready").body) + string(r.do(t, "GET", "/status").body)
	if strings.Contains(log.String()+answers, "secret") {
		t.Errorf("the password is in the log or in a response: %s %s", log.String(), answers)
	}
}

// A process exits with ExitConfig after a configuration error, and with 0 after -help.
func TestMainCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"-port=x"}, daemon.ExitConfig, "port"},
		{[]string{"-help"}, 0, "CACHE_MAX_SIZE"},
		{[]string{"-host=127.0.0.1", "-port=0", "-cache-max-size=1"}, daemon.ExitConfig, "at least 65536"},
		{[]string{"-host=192.0.2.1", "-port=0"}, 1, "192.0.2.1"}, // reserved for documentation, so never local
	} {
		var stderr bytes.Buffer
		code := daemon.Main(tt.args, func(string) string { return "" }, &stderr, ParseConfig, Run)
		if code != tt.want || !strings.Contains(stderr.String(), tt.text) {
			t.Errorf("%q: code %d, %s, want %d, %q", tt.args, code, stderr.String(), tt.want, tt.text)
		}
	}
}
