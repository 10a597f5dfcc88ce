package writer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
)

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		env  map[string]string
		want string // part of the error, "" for none
	}{
		{"defaults", nil, nil, ""},
		{"all", nil, map[string]string{"REDIS_ADDR": "a:1", "PORT": "81", "WRITER_TOKEN": "secret", "LOG_LEVEL": "warn"}, ""},
		{"port", nil, map[string]string{"PORT": "-1"}, "PORT=-1: a TCP port is between"},
		{"address", nil, map[string]string{"REDIS_ADDR": "a"}, "REDIS_ADDR"},
		{"token with a space", nil, map[string]string{"WRITER_TOKEN": "my secret"}, "WRITER_TOKEN cannot be sent in a header"},
		{"token with a line end", []string{"-writer-token=my-secret\n"}, nil, "WRITER_TOKEN cannot be sent in a header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig(tt.args, func(name string) string { return tt.env[name] })
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error contains the token: %v", err)
			}
			if err == nil && (c.Drain != httpkit.Drain || c.Token != tt.env["WRITER_TOKEN"]) {
				t.Errorf("configuration %+v", c)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	cfg := Config{Data: redisconfig.Data{Common: daemon.Common{Host: "127.0.0.1"}, Redis: redisconfig.Redis{Addr: []string{"127.0.0.1:1"}}}}
	cfg.Port, _ = strconv.Atoi(port)
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("error %v, want one that contains port %s", err, port)
	}
}

// TestSecretsAreNotLogged searches the log and the answers for the password and the token of a writer whose password is
// wrong.
func TestSecretsAreNotLogged(t *testing.T) {
	b := redistest.StartEmbeddedWithPassword(t, "the right one")
	var log logtest.Buffer
	w := start(t, b.Addr(), defaultTimeout, func(c *Config) {
		c.Redis.Password = "a-wrong-secret"
		c.Token = "a-secret-token"
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	res := w.do(t, "POST", "/create", line("a", "t"), "Authorization", "Bearer a-secret-token")
	wantProblem(t, res, 503, "")
	ready := w.do(t, "GET", "/ready", "")
	if ready.status != 503 {
		t.Errorf("/ready: %d", ready.status)
	}
	if all := log.String() + string(res.body) + string(ready.body); strings.Contains(all, "secret") {
		t.Errorf("a secret is revealed: %s", all)
	}
	if !strings.Contains(log.String(), "write failed") {
		t.Errorf("the failure is not logged: %s", log.String())
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout)
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 200, "a") // counts as replace
	wantSuccess(t, db, w.do(t, "PUT", "/post?id=b", `{"title":"t"}`), 201, "b")
	w.do(t, "POST", "/create", "bad")
	w.do(t, "PUT", "/post?id=a", `{"title":"t"}`, "If-Match", `"00000000000000000000000000000000"`)
	w.do(t, "DELETE", "/post?id=b", "")
	w.do(t, "DELETE", "/post?id=b", "")
	w.do(t, "POST", "/import", line("a", "t")+line("c", "t")+"bad\n\n")
	proxy.BlackHole(faultnet.ToClient, true)
	w.do(t, "DELETE", "/post?id=c", "")

	res := w.do(t, "GET", "/metrics", "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(res.body))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want   float64
		name   string
		labels string
	}{
		{2, "writer_writes_total", "op=create outcome=ok"},
		{1, "writer_writes_total", "op=replace outcome=ok"},
		{1, "writer_writes_total", "op=create outcome=refused"},
		{1, "writer_writes_total", "op=replace outcome=conflict"},
		{1, "writer_writes_total", "op=delete outcome=ok"},
		{1, "writer_writes_total", "op=delete outcome=not_found"},
		{1, "writer_writes_total", "op=delete outcome=unknown"},
		{0, "writer_writes_total", "op=delete outcome=unavailable"},
		{7, "writer_publish_seconds", ""},
		{1, "writer_import_lines_total", "outcome=created"},
		{1, "writer_import_lines_total", "outcome=replaced"},
		{1, "writer_import_lines_total", "outcome=refused"},
		{0, "writer_import_lines_total", "outcome=not_written"},
		{3, "http_requests_total", "code=200,201,400 route=/create"},
		{0, "http_connections_refused_total", ""},
		{1, "service_info", "service=writer"},
		{0, "redis_moves_total", ""},
		{1, "redis_server_found", "role=primary"},
	} {
		if got, err := metric(all[tt.name], tt.labels); err != nil || got != tt.want {
			t.Errorf("%s{%s} is %v, %v, want %v", tt.name, tt.labels, got, err, tt.want)
		}
	}
}

// TestStatus reads /status before, during and after the time in which Redis is reachable.
func TestStatus(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		proxy := faultnet.NewProxy(t, "")
		w := start(t, proxy.Addr(), defaultTimeout)
		if res := w.do(t, "GET", "/status", ""); res.status != 200 || string(res.body) != `{"redis":{"addr":"","product":"","role":"","moves":0}}`+"\n" {
			t.Errorf("without Redis: %d %s", res.status, res.body)
		}
		proxy.SetTarget(b.Addr())
		eventually.Nil(t, func() error {
			if res := w.do(t, "GET", "/ready", ""); res.status != 200 {
				return fmt.Errorf("/ready: %d %s", res.status, res.body)
			}
			return nil
		})
		var s struct{ Redis redisnode.Server }
		if res := w.do(t, "GET", "/status", ""); json.Unmarshal(res.body, &s) != nil || s.Redis.Addr != proxy.Addr() ||
			s.Redis.Role != redisnode.Primary || b.Real() == (s.Redis.Product == "") {
			t.Errorf("%d %s", res.status, res.body)
		}
		proxy.Refuse(true) // the primary dies
		proxy.Reset()
		eventually.Nil(t, func() error {
			res := w.do(t, "GET", "/status", "")
			if text := string(res.body); strings.Contains(text, proxy.Addr()+`","product`) || !strings.Contains(text, `"problem":"no primary is known: `) {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	})
}

// metric returns the sum of the series that match all labels. A label is name=value or name=value,value.
func metric(f *dto.MetricFamily, labels string) (total float64, err error) {
	if f == nil {
		return 0, errors.New("no such metric")
	}
	found := false
series:
	for _, m := range f.GetMetric() {
		for want := range strings.FieldsSeq(labels) {
			name, values, _ := strings.Cut(want, "=")
			match := false
			for _, l := range m.GetLabel() {
				for value := range strings.SplitSeq(values, ",") {
					match = match || l.GetName() == name && l.GetValue() == value
				}
			}
			if !match {
				continue series
			}
		}
		found = true
		total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	if !found {
		return 0, errors.New("no such series")
	}
	return total, nil
}

// If METRICS_PORT is set, metrics and readiness are not served on the public port.
func TestMetricsPort(t *testing.T) {
	listening := make(chan string, 1)
	w := start(t, redistest.StartEmbedded(t).Addr(), func(c *Config) {
		c.MetricsListening = func(addr string) { listening <- addr }
	})
	back := <-listening
	for _, path := range []string{"/health", "/ready", "/metrics"} {
		if res := w.do(t, "GET", path, ""); res.status != 404 {
			t.Errorf("%s on the public port: %d %s, want 404", path, res.status, res.body)
		}
		eventually.Nil(t, func() error { // /ready answers 503 until Redis has been checked
			res, err := servicetest.Client.Get("http://" + back + path)
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode != 200 {
				return fmt.Errorf("%s: %s", path, res.Status)
			}
			return nil
		})
	}
	if res := w.do(t, "POST", "/create", `{"id":"a","title":"t"}`); res.status != 201 {
		t.Errorf("POST /create: %d %s", res.status, res.body)
	}
	for _, args := range [][]string{{"-metrics-port=70000"}, {"-metrics-port=8080"}, {"-metrics-port=-1"}} {
		if _, err := ParseConfig(args, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "METRICS_PORT") {
			t.Errorf("%s: %v", args, err)
		}
	}
	c, err := ParseConfig([]string{"-metrics-port=9092"}, func(string) string { return "" })
	if err != nil || c.ReadyPort != 9092 {
		t.Errorf("-health uses port %d (%v), want 9092", c.ReadyPort, err)
	}
}
