package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// A process serves profiles on PPROF_ADDR and stops when it ends.
func TestProfiles(t *testing.T) {
	var url string
	code, log := runMainUntil(t, func(log string) {
		found := regexp.MustCompile(`url=(http://127\.0\.0\.1:\d+/debug/pprof/)`).FindStringSubmatch(log)
		if found == nil {
			t.Fatalf("no address in %q", log)
		}
		url = found[1]
		for path, want := range map[string]string{"": "goroutine", "heap?debug=1": "heap profile", "cmdline": "daemon.test"} {
			res, err := http.Get(url + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
				t.Errorf("GET %s: %d %.200s %v, want %q", path, res.StatusCode, body, err, want)
			}
		}
	}, "-pprof-addr=127.0.0.1:0")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	http.DefaultClient.CloseIdleConnections()
	if res, err := http.Get(url); err == nil {
		res.Body.Close()
		t.Error("profiles are still served after the process has ended")
	}
}

func TestProfilesAreOffByDefault(t *testing.T) {
	code, log := runMainUntil(t, func(string) {})
	if code != 0 || strings.Contains(log, "profiles") {
		t.Errorf("exit code %d: %s", code, log)
	}
}

func TestProfilesNeedAnAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		addr string
		code int
		says string
	}{
		{"6060", ExitConfig, `PPROF_ADDR="6060": write host:port`},
		{"127.0.0.1:", ExitConfig, "write host:port"},
		{taken.Addr().String(), 1, "serve the Go profiles on PPROF_ADDR=" + taken.Addr().String()},
	} {
		code, says := runMain(t, "-pprof-addr="+tt.addr)
		if code != tt.code || !strings.Contains(says, tt.says) {
			t.Errorf("%s: exit code %d and %q, want %d and %q", tt.addr, code, says, tt.code, tt.says)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	if code, says := runMain(t, "-version"); code != 0 || !regexp.MustCompile(`^test \S+ \(revision \S+, go\S+\)\n$`).MatchString(says) {
		t.Errorf("exit code %d and %q", code, says)
	}
}

// The first line of the log identifies the build.
func TestStartIsLoggedWithTheVersion(t *testing.T) {
	code, log := runMainUntil(t, func(string) {})
	if first, _, _ := strings.Cut(log, "\n"); code != 0 || !regexp.MustCompile(`msg=starting version=\S+ revision=\S+ go=go`).MatchString(first) {
		t.Errorf("exit code %d and %q", code, log)
	}
}

// runMainUntil runs a program that has only the common settings. Once it has started, runMainUntil calls running
// with its log, and then the program ends.
func runMainUntil(t *testing.T, running func(log string), args ...string) (code int, log string) {
	t.Helper()
	var out bytes.Buffer
	started := errors.New("not started")
	code = Main(args, func(string) string { return "" }, &out, parseTest, func(context.Context, testConfig) error {
		started = nil
		running(out.String())
		return nil
	})
	if started != nil {
		t.Fatalf("%v: %s", started, out.String())
	}
	return code, out.String()
}
