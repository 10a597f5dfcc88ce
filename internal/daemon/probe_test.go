package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestHealthFlag(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		code   int
		says   string
	}{
		{"ready", 200, `{"status":"ready"}`, 0, "ready"},
		{"degraded counts as ready", 200, `{"status":"degraded","reasons":["reads may be stale: updates of the last 2.0 s may be missing"]}`, 0, "degraded: reads may be stale"},
		{"loading", 503, `{"status":"loading","reasons":["one","two"]}`, 1, "not ready: loading: one, two"},
		{"another program", 200, "<html>", 1, "without valid JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/ready" {
					t.Errorf("the probe requested %s, want /ready", r.URL.Path)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			code, says := runMain(t, "-health", "-port="+port)
			if code != tt.code || !strings.Contains(says, tt.says) {
				t.Errorf("exit code %d and %q, want %d and %q", code, says, tt.code, tt.says)
			}
		})
	}
}

func TestHealthFlagWithoutProcess(t *testing.T) {
	gone := httptest.NewServer(nil)
	port := portOf(t, gone.URL)
	gone.Close()
	if code, says := runMain(t, "-health", "-port="+port); code != 1 || !strings.Contains(says, "refused") {
		t.Errorf("exit code %d and %q, want 1 and a refused connection", code, says)
	}
}

// The probe ignores the proxy settings of the environment. net/http reads them once per process, so the test runs a
// child process.
func TestProbeUsesNoProxy(t *testing.T) {
	const child = "SERVICE_TEST_PROXIED"
	if os.Getenv(child) != "" {
		code, says := runMain(t, "-health", "-port=1", "-host=255.255.255.255") // an address that refuses connections
		fmt.Println(code, says)
		return
	}
	port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the proxy received a request for %s", r.URL)
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProbeUsesNoProxy$")
	cmd.Env = append(os.Environ(), child+"=yes", "http_proxy=http://127.0.0.1:"+port, "HTTP_PROXY=http://127.0.0.1:"+port, "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "1 not ready: ") {
		t.Errorf("%v: %s", err, out)
	}
}

// The health check of a process that hangs must fail in time.
func TestProbeIsBounded(t *testing.T) {
	done := make(chan struct{})
	port := serve(t, func(http.ResponseWriter, *http.Request) { <-done })
	defer close(done) // runs before the server is closed, which waits for the handler
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := probe(&Common{Port: number}, 50*time.Millisecond); err == nil {
		t.Errorf("a process that hangs is reported as %q", state)
	}
}

// The probe connects to the configured host and port.
func TestProbeUsesTheConfiguredAddress(t *testing.T) {
	port := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ready"}`) })
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Common{
		{Port: number},
		{Port: 1, ReadyPort: number},
		{Port: number, Host: "127.0.0.1"},
		{Port: number, Host: "0.0.0.0"},
		{Port: number, Host: "::"},
		{Port: number, Host: "localhost"},
	} {
		if _, err := probe(&c, time.Second); err != nil {
			t.Errorf("host %q, port %d, ready port %d: %v", c.Host, c.Port, c.ReadyPort, err)
		}
	}
}

// testConfig is the configuration of a program that has only the common settings.
type testConfig struct{ Common }

func parseTest(args []string, getenv func(string) string) (c testConfig, err error) {
	s := NewSettings("test", getenv)
	c.Register(s, 80)
	if err := s.Parse(args); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// runMain runs a program that must not start.
func runMain(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	var out bytes.Buffer
	code = Main(args, func(string) string { return "" }, &out, parseTest, func(context.Context, testConfig) error {
		t.Error("the process started")
		return nil
	})
	return code, out.String()
}

// serve starts a server with handler h on 127.0.0.1 and returns its port.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return portOf(t, s.URL)
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}
