package local

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/stack/layout"
)

// answering returns a server that stands in for writer and gateway. last returns the id of the last request, and
// then "" until the next one.
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

// makeTree returns a copy of what make needs, in which bin/local is the test binary.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"Makefile", "local/stack.sh"} {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(testProgram(t), filepath.Join(dir, "bin", "local")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// An id may have any character, also those that make or the shell would expand.
func TestPostIDIsTakenLiterally(t *testing.T) {
	server, last := answering(t)
	url := server.URL
	// A make that is run by another one, as by make test, says where it is.
	env := []string{childEnvironment + "=1", "WRITER_URL=" + url, "GATEWAY_URL=" + url, "MAKEFLAGS=", "MAKELEVEL="}
	dir := makeTree(t)
	for _, id := range []string{"hello", "two words", `"quoted"`, "it's", "$HOME", "$(HOME)", "$$", "`id`", `a\b\n`, `\`, "#1", "100%", "@file", "a;exit 1", "<&>", "ü"} {
		out, code := execute(t, dir, env, "make", "test-write", "POST_ID="+id)
		if got := last(); code != 0 || got != id {
			t.Errorf("make test-write POST_ID=%s wrote %q\n%s", id, got, out)
		}
		_, read, _ := strings.Cut(out, "Read it: ")
		out, code = execute(t, dir, env, "sh", "-c", read)
		if got := last(); code != 0 || got != id {
			t.Errorf("%s read %q\n%s", strings.TrimSpace(read), got, out)
		}
	}
}

// unreachable sets a proxy on a port on which nothing listens, for every kind of request.
var unreachable = []string{"http_proxy=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1",
	"all_proxy=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1", "no_proxy=", "NO_PROXY="}

// BIND_ADDRESS moves writer and gateway only in Docker. Requests to this machine ignore proxies.
func TestCommandsReachTheStack(t *testing.T) {
	server, last := answering(t)
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	dir := t.TempDir()
	inDocker := []string{"RUNTIME=docker", "WRITER_PORT=1", "GATEWAY_PORT=2", "PORT=" + port, "STATE=" + dir, "RUN_DIR=" + dir, fakePath(t)}
	local := []string{"RUNTIME=local", "BIND_ADDRESS=192.0.2.1", "RUN_DIR=" + dir}
	for _, env := range [][]string{inDocker, local} {
		env = append(env, unreachable...)
		for command, setting := range map[string]string{"test-write": "WRITER_PORT=", "test-read": "GATEWAY_PORT="} {
			if env[0] == "RUNTIME=local" {
				env = append(slices.Clone(local), append(unreachable, setting+port)...)
			}
			out, code := inTree(t, env, command, "x")
			if id := last(); code != 0 || id != "x" {
				t.Errorf("%s, %s: exit code %d, asked for %q\n%s", env[0], command, code, id, out)
			}
		}
	}
	const want = "the stack is not running: make start"
	if out, code := inTree(t, append(inDocker, "EMPTY=yes"), "test-read", "x"); code == 0 || !strings.Contains(out, want) {
		t.Errorf("without a container: exit code %d, want %q\n%s", code, want, out)
	}
}

// An answer that is an error is printed, and fails the command.
func TestRefusedRequestFails(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	out, code := inTree(t, []string{"GATEWAY_URL=" + server.URL}, "test-read", "x")
	if code != 1 || !strings.HasPrefix(out, "HTTP/1.1 404 Not Found") || !strings.Contains(out, "404 page not found") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestStatsReachTheStackInDocker(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "cache_ready 1\ncache_entries 77\n")
	}))
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	state := t.TempDir()
	env := append([]string{"RUNTIME=docker", "STATE=" + state, "RUN_DIR=" + state, "PORT=" + port, fakePath(t)}, unreachable...)
	out, code := inTree(t, env, "stats")
	if code != 0 || strings.Count(out, " ready ") != 3 || strings.Count(out, " 77 ") != 3 {
		t.Errorf("exit code %d, want three ready readers\n%s", code, out)
	}
}

// The reason of a degraded reader is below the table, whose columns it would widen.
func TestStatsOfDegradedReaders(t *testing.T) {
	state := t.TempDir()
	out, code := inTree(t, []string{"RUNTIME=docker", "STATE=" + state, "RUN_DIR=" + state, "SAYS=degraded: a long reason", fakePath(t)}, "stats")
	table, below, _ := strings.Cut(out, "gateway ")
	if code != 0 || strings.Count(table, " degraded ") != 3 || strings.Contains(table, "reason") || strings.Count(below, " is degraded: a long reason\n") != 3 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// Compose before 2.24 lacks features that the stack needs. It is reported as too old, not as unavailable images.
func TestComposeThatIsTooOld(t *testing.T) {
	for version, old := range map[string]bool{
		"1.29.2": true, "v1.29.2": true, "2.0.1": true, "v2.2": true, "2.2.3": true, "v2.15.1": true, "2.20.2+ds1": true, "2.23.3-desktop.2": true, "v2.23.3": true,
		"2.24.0": false, "v2.24.6": false, "2.30.1": false, "2.40.3+ds1": false, "2.100.0": false, "v5.0.0": false, "10.1.0": false, "dev": false,
	} {
		out, code := inTree(t, []string{"RUNTIME=docker", "COMPOSE_VERSION=" + version, "STATE=" + t.TempDir(), fakePath(t)}, "runtime")
		if refused := code != 0 && strings.Contains(out, "2.24 or newer is needed"); refused != old || (code != 0) != old {
			t.Errorf("Compose %s: exit code %d, %s", version, code, out)
		}
	}
}

// Docker has the same limit of readers as the local stack, or the number of ports in READER_PORTS if that is lower.
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
			env := []string{"RUNTIME=docker", "STATE=" + state, "RUN_DIR=" + state, "LISTS=3", "READERS=" + tt.readers, "READER_PORTS=" + tt.ports, fakePath(t)}
			out, code := inTree(t, env, args...)
			want := fmt.Sprintf("error: %s=%s: between 1 and %d readers", name, tt.readers, tt.most)
			if tt.ok && code != 0 || !tt.ok && (code != 2 || !strings.Contains(out, want)) {
				t.Errorf("READER_PORTS=%s %s=%s: exit code %d, want %q: %v\n%s", tt.ports, name, tt.readers, code, want, !tt.ok, out)
			}
		}
	}
}
