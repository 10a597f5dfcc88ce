package service

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
)

// answer returns the address of a server with a /ready and /metrics.
func answer(t *testing.T, code int, ready, metrics string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" {
			w.WriteHeader(code)
			io.WriteString(w, ready)
			return
		}
		io.WriteString(w, metrics)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// The service shows the processes, without the control API: no button breaks anything, and the paths do not exist.
func TestService(t *testing.T) {
	listening := make(chan string, 1)
	reader := answer(t, 200, `{"status":"ready"}`, "# TYPE cache_entries gauge\ncache_entries 3\n")
	cfg := Config{
		Common:  daemon.Common{Host: "127.0.0.1", Logger: slog.New(slog.DiscardHandler), Listening: func(addr string) { listening <- addr }},
		Readers: []string{reader}, Writer: answer(t, 503, `{"status":"not ready","reasons":["Redis is unreachable"]}`, ""),
		GatewayMetrics: "http://" + answer(t, 200, "", "# TYPE apisix_http_status counter\napisix_http_status{code=\"200\",route=\"post\"} 7\n") + "/apisix/prometheus/metrics",
		GatewayRefresh: 5 * time.Second, PrometheusLink: "http://localhost:9090",
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	addr := <-listening
	var series struct {
		Processes []state.Process
		Controls  bool
	}
	eventually.True(t, "the processes are shown", func() bool {
		res, err := http.Get("http://" + addr + "/api/series?last=1")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return json.NewDecoder(res.Body).Decode(&series) == nil && len(series.Processes) == 4
	})
	want := map[string]string{
		"redis": "not ready: Redis is unreachable", "writer": "not ready: Redis is unreachable", reader: "ready", "gateway": "ready",
	}
	for _, p := range series.Processes {
		// The name of this machine's address depends on its hosts file.
		if name := p.Name; p.Role == state.Reader {
			if p.StateText() != "ready" || p.Address != reader {
				t.Errorf("reader %+v", p)
			}
		} else if p.StateText() != want[name] {
			t.Errorf("%s is %q, want %q", name, p.StateText(), want[name])
		}
	}
	if series.Controls {
		t.Error("the page has buttons that break the stack")
	}
	for _, path := range []string{"/api/fault", "/api/scale", "/api/load"} {
		res, err := http.Post("http://"+addr+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: status %d", path, res.StatusCode)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A failing DNS does not remove the readers from the page: their last addresses count for a minute, with a note. A name that
// has no address any more is gone at once.
func TestReadersWhileTheDNSFails(t *testing.T) {
	reader := answer(t, 200, `{"status":"ready"}`, "")
	_, port, _ := net.SplitHostPort(reader)
	now := time.Now()
	fails, gone := &net.DNSError{Err: "server misbehaving", IsTemporary: true}, &net.DNSError{Err: "no such host", IsNotFound: true}
	var result error
	var log logtest.Buffer
	p := newProcesses(Config{
		Common:  daemon.Common{Logger: slog.New(slog.NewTextHandler(&log, nil))},
		Readers: []string{"slow:" + port, "reader:" + port}, Writer: "127.0.0.1:1", WriterMetrics: "127.0.0.1:1",
	})
	p.now = func() time.Time { return now }
	p.lookUp = func(ctx context.Context, host string) ([]string, error) {
		if host == "slow" { // must not fail the others
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if result != nil {
			return nil, result
		}
		return []string{"127.0.0.1"}, ctx.Err()
	}
	for _, tt := range []struct {
		after time.Duration
		err   error
		want  string // address, state and note; "" for no reader
	}{
		{0, fails, "reader:" + port + " not ready: the DNS does not answer"},
		{0, nil, reader + " ready: "},
		{time.Second, fails, reader + " ready: the DNS does not answer; its address is from 1s ago"},
		{keepAddresses - 2*time.Second, fails, reader + " ready: the DNS does not answer; its address is from 59s ago"},
		{time.Second, fails, "reader:" + port + " not ready: the DNS does not answer"},
		{0, nil, reader + " ready: "},
		{time.Second, gone, ""},
		{time.Second, fails, ""}, // the last answer was that there is none
	} {
		now, result = now.Add(tt.after), tt.err
		got := ""
		for _, r := range p.state(t.Context()) {
			if r.Role == state.Reader && r.Address != "slow:"+port {
				got += r.Address + " " + r.State + ": " + r.Note
			}
		}
		if got != tt.want {
			t.Errorf("%v later, with %v: %q, want %q", tt.after, tt.err, got, tt.want)
		}
	}
	if !strings.Contains(log.String(), "the DNS does not answer") {
		t.Error("the log does not say that the DNS fails")
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "set READERS and WRITER"},
		{[]string{"-writer=w:1"}, "set READERS"},
		{[]string{"-writer=w:1", "-readers=r"}, `"r" is not the address`},
		{[]string{"-writer=w:1", "-readers=r:1", "-port=-1"}, "PORT=-1"},
	} {
		if _, err := ParseConfig(tt.args, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q", tt.args, err, tt.want)
		}
	}
	c, err := ParseConfig([]string{"-writer=w:1", "-readers=r:1"}, func(string) string { return "" })
	if err != nil || c.WriterMetrics != "w:1" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestReaderName(t *testing.T) {
	for container, want := range map[string]string{
		"heavy-read-api-reader-2.heavy-read-api_default.": "reader-2", "p-reader-direct-1.p_default.": "reader-direct", "x.example.": "",
	} {
		if got := readerName(container); got != want {
			t.Errorf("%s is %q, want %q", container, got, want)
		}
	}
}

func TestRedisAsTheWriterReportsIt(t *testing.T) {
	for _, tt := range []struct{ writer, detail, want string }{
		{state.Ready, "", "ready"}, {state.NotReady, "Redis is unreachable", "not ready: Redis is unreachable"}, {state.NotReady, "connection refused", "degraded: not known, because the writer is not ready"},
	} {
		if got := redis(state.Process{State: tt.writer, Detail: tt.detail}); got.StateText() != tt.want {
			t.Errorf("%+v: %q", tt, got.StateText())
		}
	}
}

// A new reader may get the address of one that is gone, but not its name.
func TestNameOfAnAddressThatIsGoneIsForgotten(t *testing.T) {
	p := newProcesses(Config{Readers: []string{"127.0.0.1:80"}})
	p.names = map[string]string{"127.0.0.1:80": "reader-1", "127.0.0.2:80": "reader-2"}
	if all := p.readers(t.Context()); len(all) != 1 || all[0].Name != "reader-1" {
		t.Errorf("readers %+v", all)
	}
	if len(p.names) != 1 || p.names["127.0.0.1:80"] != "reader-1" {
		t.Errorf("names %v", p.names)
	}
}
