package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/stack/layout"
)

// answering answers as writer and gateway do. last returns the id of the last request, once.
func answering(t *testing.T) (s *httptest.Server, last func() string) {
	var asked atomic.Value
	asked.Store("")
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("id")
		if r.Method == http.MethodPost {
			var post struct{ ID string }
			if err := json.NewDecoder(r.Body).Decode(&post); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			id = post.ID
		}
		asked.Store(id)
		io.WriteString(w, "answered\n")
	}))
	t.Cleanup(s.Close)
	return s, func() string { return asked.Swap("").(string) }
}

// An id may have any character, and make and the shell have their own ideas about some.
func TestPostIDIsTakenLiterally(t *testing.T) {
	server, last := answering(t)
	url := server.URL
	// A make that is run by another one, as by make test, says where it is.
	env := []string{"WRITER_URL=" + url, "GATEWAY_URL=" + url, "MAKEFLAGS=", "MAKELEVEL="}
	for _, id := range []string{"hello", "two words", `"quoted"`, "it's", "$HOME", "$(HOME)", "$$", "`id`", `a\b\n`, `\`, "#1", "100%", "@file", "a;exit 1", "<&>", "ü"} {
		out, code := run(t, env, "make", "test-write", "POST_ID="+id)
		if got := last(); code != 0 || got != id {
			t.Errorf("make test-write POST_ID=%s wrote %q\n%s", id, got, out)
		}
		_, read, _ := strings.Cut(out, "Read it: ")
		out, code = run(t, env, "sh", "-c", read)
		if got := last(); code != 0 || got != id {
			t.Errorf("%s read %q\n%s", strings.TrimSpace(read), got, out)
		}
	}
}

// unreachable is a proxy at which nobody listens, for every kind of request.
var unreachable = []string{"http_proxy=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1",
	"all_proxy=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1", "no_proxy=", "NO_PROXY="}

// Where BIND_ADDRESS has put writer and gateway, Compose knows. A proxy is not asked about this machine.
func TestCommandsReachTheStack(t *testing.T) {
	server, last := answering(t)
	address := server.Listener.Addr().String()
	_, port, _ := strings.Cut(address, ":")
	inDocker := []string{"RUNTIME=docker", "WRITER_PORT=1", "GATEWAY_PORT=1", "PUBLISHED=" + address, "STATE=" + t.TempDir(), fakePath(t)}
	local := []string{"RUNTIME=local", "WRITER_PORT=" + port, "GATEWAY_PORT=" + port, "BIND_ADDRESS=192.0.2.1"}
	for _, env := range [][]string{inDocker, local} {
		env = append(env, unreachable...)
		for _, command := range []string{"test-write", "test-read"} {
			out, code := run(t, env, "sh", "local/stack.sh", command, "x")
			if id := last(); code != 0 || id != "x" {
				t.Errorf("%s, %s: exit code %d, asked for %q\n%s", env[0], command, code, id, out)
			}
		}
	}
	const want = "the stack is not running: make start"
	if out, code := run(t, append(inDocker, "PUBLISHED="), "sh", "local/stack.sh", "test-read", "x"); code == 0 || !strings.Contains(out, want) {
		t.Errorf("without a container: exit code %d, want %q\n%s", code, want, out)
	}
}

func TestPublished(t *testing.T) {
	for published, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "192.0.2.7:80": "192.0.2.7:80", "0.0.0.0:80\n:::80": "127.0.0.1:80",
		"::1:80": "[::1]:80", "[::1]:80": "[::1]:80", ":::80": "[::1]:80", "[::]:80": "[::1]:80", "2001:db8::7:80": "[2001:db8::7]:80",
	} {
		out, _ := run(t, []string{fakePath(t), "STATE=" + t.TempDir(), "PUBLISHED=" + published}, "sh", "-c", ". local/compose.sh && published writer 8080")
		if out != want+"\n" {
			t.Errorf("Compose says %q: %q, want %q", published, out, want)
		}
	}
}

func TestStatsReachTheStackInDocker(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "cache_ready 1\ncache_synced 1\ncache_subscribed 1\n")
	}))
	t.Cleanup(s.Close)
	state := t.TempDir()
	env := append([]string{"STATE=" + state, "RUN_DIR=" + state, "READER=" + s.Listener.Addr().String(), "PUBLISHED=" + s.Listener.Addr().String(), fakePath(t)}, unreachable...)
	out, code := run(t, env, "sh", "local/docker.sh", "stats")
	if code != 0 || strings.Count(out, " ready ") != 3 || strings.Contains(out, "curl") {
		t.Errorf("exit code %d, want three ready readers\n%s", code, out)
	}
}

// Compose before 2.24 lacks features that the stack needs. It is reported as too old, not as unavailable images.
func TestComposeThatIsTooOld(t *testing.T) {
	for version, old := range map[string]bool{
		"1.29.2": true, "v1.29.2": true, "2.0.1": true, "v2.2": true, "2.2.3": true, "v2.15.1": true, "2.20.2+ds1": true, "2.23.3-desktop.2": true, "v2.23.3": true,
		"2.24.0": false, "v2.24.6": false, "2.30.1": false, "2.40.3+ds1": false, "2.100.0": false, "v5.0.0": false, "10.1.0": false, "dev": false,
	} {
		out, code := run(t, []string{"RUNTIME=docker", "COMPOSE_VERSION=" + version, "STATE=" + t.TempDir(), fakePath(t)}, "sh", "local/runtime.sh")
		if refused := code != 0 && strings.Contains(out, "2.24 or newer is needed"); refused != old || (code != 0) != old {
			t.Errorf("Compose %s: exit code %d, %s", version, code, out)
		}
	}
}

// As many readers can run in Docker as without, and fewer when READER_PORTS has fewer ports.
func TestReadersInDockerAreLimited(t *testing.T) {
	for _, tt := range []struct {
		ports, readers string
		most           int
		ok             bool
	}{
		{"", "1", layout.MaxReaders, true}, {"", "20", layout.MaxReaders, true}, {"", "21", layout.MaxReaders, false}, {"", "0", layout.MaxReaders, false},
		{"", "five", layout.MaxReaders, false}, {"", "-1", layout.MaxReaders, false}, {"", "999999999999999999999", layout.MaxReaders, false},
		{"8082-8091", "10", 10, true}, {"8082-8091", "11", 10, false}, {"8082", "1", 1, true}, {"8082", "2", 1, false}, {"8000-8100", "21", layout.MaxReaders, false},
	} {
		for name, args := range map[string][]string{"N": {"scale", tt.readers}, "READERS": {"start"}} {
			state := t.TempDir()
			env := []string{"STATE=" + state, "RUN_DIR=" + state, "LISTS=3", "READERS=" + tt.readers, "READER_PORTS=" + tt.ports, fakePath(t)}
			out, code := run(t, env, append([]string{"sh", "local/docker.sh"}, args...)...)
			want := fmt.Sprintf("error: %s=%s: between 1 and %d readers", name, tt.readers, tt.most)
			if tt.ok && code != 0 || !tt.ok && (code != 2 || !strings.Contains(out, want)) {
				t.Errorf("READER_PORTS=%s %s=%s: exit code %d, want %q: %v\n%s", tt.ports, name, tt.readers, code, want, !tt.ok, out)
			}
		}
	}
}
