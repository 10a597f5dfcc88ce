package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/redistest"
)

func env(m map[string]string) func(string) string { return func(name string) string { return m[name] } }

func TestParseAddresses(t *testing.T) {
	a, err := ParseAddresses(env(nil))
	want := Addresses{Writer: "127.0.0.1:8080", Direct: "127.0.0.1:8081", Gateway: "127.0.0.1:9080", GatewayMetrics: "127.0.0.1:9091", Dashboard: "127.0.0.1:3000", WriterMetrics: "127.0.0.1:9092"}
	if err != nil || a != want {
		t.Errorf("without an environment: %+v (%v), want %+v", a, err, want)
	}
	a, err = ParseAddresses(env(map[string]string{"WRITER_PORT": "1", "DIRECT_PORT": "2", "GATEWAY_PORT": "3", "GATEWAY_METRICS_PORT": "4", "DASHBOARD_PORT": "5", "WRITER_TOKEN": "secret"}))
	want = Addresses{Writer: "127.0.0.1:1", Direct: "127.0.0.1:2", Gateway: "127.0.0.1:3", GatewayMetrics: "127.0.0.1:4", Dashboard: "127.0.0.1:5", WriterMetrics: "127.0.0.1:9092", Token: "secret"}
	if err != nil || a != want {
		t.Errorf("got %+v (%v), want %+v", a, err, want)
	}
	for _, bad := range []string{"x", "0", "65536", "-1"} {
		if _, err := ParseAddresses(env(map[string]string{"GATEWAY_PORT": bad})); err == nil || !strings.Contains(err.Error(), "GATEWAY_PORT="+bad) {
			t.Errorf("GATEWAY_PORT=%s: %v", bad, err)
		}
	}
}

// A proxy of the environment would receive the requests to a stack on a LAN address.
func TestClientUsesNoProxy(t *testing.T) {
	if Client.Transport.(*http.Transport).Proxy != nil {
		t.Error("the client uses the proxy of the environment")
	}
}

// TestMain deletes the program that buildLocal builds.
func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(localDir)
	os.Exit(code)
}

var (
	localDir   string
	buildsOnce sync.Once
)

// buildLocal builds the stack's program once and returns its path.
func buildLocal(t *testing.T) string {
	t.Helper()
	buildsOnce.Do(func() {
		dir, err := os.MkdirTemp("", "local")
		if err != nil {
			t.Fatal(err)
		}
		localDir = dir
		if out, err := exec.Command("go", "build", "-o", dir, "heavy-read-api/local").CombinedOutput(); err != nil {
			t.Fatalf("build local: %v\n%s", err, out)
		}
	})
	return filepath.Join(localDir, "local")
}

// fakeDocker puts a fake docker on the PATH that responds as Compose is documented to. received returns the commands
// since its last call.
func fakeDocker(t *testing.T, script string) (root string, received func() []string) {
	t.Helper()
	bin, root := t.TempDir(), t.TempDir()
	log := filepath.Join(bin, "log")
	text := "#!/bin/sh\necho \"$*\" >>" + log + "\ncase \"$*\" in\n" + script + "\n*) echo \"unknown: $*\" >&2; exit 1 ;;\nesac\n"
	if err := os.WriteFile(filepath.Join(bin, "docker"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	// The stack's real program handles the commands that only read; those that change the stack are logged.
	program := buildLocal(t)
	scripts := map[string]string{"docker-compose.yaml": "", "local/stack.sh": "case $1 in runtime | compose) exec " + program + " \"$@\" ;; esac\n" +
		"echo \"$*\" >>" + log + "\n[ \"$*\" = 'scale 4' ]\n"}
	if err := os.Mkdir(filepath.Join(root, "local"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range scripts {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("RUNTIME", "")
	t.Setenv("RUN_DIR", filepath.Join(root, "run"))
	return root, func() []string {
		b, _ := os.ReadFile(log)
		_ = os.Remove(log)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

const docker3 = `version | "compose version") ;;
"compose version --short") echo 2.40.0 ;;
"compose ps --quiet") echo a1 ;;
"compose ps --format json reader") cat <<'EOF'
{"ID":"a1","Name":"heavy-reader-1","Service":"reader","State":"running"}
{"ID":"a3","Name":"heavy-reader-3","Service":"reader","State":"running"}
EOF
;;
"compose ps --format json redis") echo '[{"ID":"b1","Name":"heavy-redis-1","Service":"redis","State":"running"}]' ;;
"compose port --index 1 reader 80") echo 0.0.0.0:32768 ;;
"compose port --index 3 reader 80") printf '[::]:32770\n127.0.0.1:32770\n' ;;
"compose port redis 6379") echo 127.0.0.1:6379 ;;
"compose port writer 8080") echo 192.0.2.7:8080 ;;
"compose port apisix 9080") echo ::1:9080 ;;
"compose exec -T redis printenv REDIS_ADMIN_PASSWORD") echo secret ;;
"kill heavy-redis-1" | "start heavy-redis-1" | "kill heavy-reader-3" | "start heavy-reader-3") ;;`

func TestDetect(t *testing.T) {
	root, _ := fakeDocker(t, docker3)
	r, a, err := Detect(t.Context(), root, Addresses{Writer: "127.0.0.1:1", Gateway: "127.0.0.1:2", Direct: "127.0.0.1:3"})
	if err != nil || r.Name() != "docker" {
		t.Errorf("with Docker: %v (%v), want docker", r, err)
	}
	if want := (Addresses{Writer: "192.0.2.7:8080", Gateway: "[::1]:9080", Direct: "127.0.0.1:3"}); a != want {
		t.Errorf("with Docker: %+v, want %+v", a, want)
	}
	t.Setenv("RUNTIME", "local")
	if r, _, err = Detect(t.Context(), root, Addresses{}); err != nil || r.Name() != "local" {
		t.Errorf("RUNTIME=local: %v (%v)", r, err)
	}
	t.Setenv("RUNTIME", "podman")
	if _, _, err = Detect(t.Context(), root, Addresses{}); err == nil || err.Error() != "RUNTIME=podman: use local or docker" {
		t.Errorf("RUNTIME=podman: %v", err)
	}
	t.Setenv("RUNTIME", "")
	if err := os.Remove(filepath.Join(root, "docker-compose.yaml")); err != nil {
		t.Fatal(err)
	}
	if r, _, err = Detect(t.Context(), root, Addresses{}); err != nil || r.Name() != "local" {
		t.Errorf("without docker-compose.yaml: %v (%v), want local", r, err)
	}
}

func TestDocker(t *testing.T) {
	root, received := fakeDocker(t, docker3)
	d := &docker{root: root}
	readers, err := d.Readers(t.Context())
	want := []Reader{{"heavy-reader-1", "127.0.0.1:32768"}, {"heavy-reader-3", "127.0.0.1:32770"}}
	if err != nil || !slices.Equal(readers, want) {
		t.Errorf("readers %v (%v), want %v", readers, err, want)
	}
	if r, err := d.Redis(t.Context()); err != nil || r != (RedisServer{"127.0.0.1:6379", "", "secret"}) {
		t.Errorf("Redis: %+v (%v)", r, err)
	}
	received()
	if err := d.Scale(t.Context(), 4); err != nil || !slices.Equal(received(), []string{"scale 4"}) {
		t.Errorf("scale to 4: %v", err)
	}
	for process, container := range map[string]string{Redis: "heavy-redis-1", "heavy-reader-3": "heavy-reader-3"} {
		revive, err := d.Kill(t.Context(), process)
		if err != nil {
			t.Fatal(err)
		}
		if err := revive(t.Context()); err != nil {
			t.Fatal(err)
		}
		calls := received()
		if want := []string{"kill " + container, "start " + container}; !slices.Equal(calls[len(calls)-2:], want) {
			t.Errorf("kill %s: docker received %q, want %q", process, calls, want)
		}
	}
	if err := d.Scale(t.Context(), 9); err == nil {
		t.Error("no error although the script failed")
	}
	if _, err := d.Kill(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "unknown: kill nobody") {
		t.Errorf("docker failed: got the error %v, want its output", err)
	}
}

func TestDockerNotRunning(t *testing.T) {
	root, _ := fakeDocker(t, `"compose version") ;;
"compose ps --format json reader") ;;
"compose port redis 6379") echo ":0" ;;`)
	d := &docker{root: root}
	if _, err := d.Readers(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
	if _, err := d.Redis(t.Context()); err == nil {
		t.Error("no error for a port that is not published")
	}
}

// withSentinel has two Redis servers, of which redis-2 is the primary, and a Sentinel.
const withSentinel = `"compose version") ;;
"compose ps --format json") cat <<'EOF'
{"ID":"b1","Name":"heavy-redis-1","Service":"redis","State":"running","Health":"healthy"}
{"ID":"b2","Name":"heavy-redis-2-1","Service":"redis-2","State":"running","Health":"healthy"}
{"ID":"b3","Name":"heavy-redis-exporter-1","Service":"redis-exporter","State":"running","Health":"starting"}
{"ID":"c1","Name":"heavy-sentinel-1-1","Service":"sentinel-1","State":"running","Health":"healthy"}
EOF
;;
"compose exec -T redis redis-cli info replication") printf '# Replication\r\nrole:slave\r\nmaster_host:172.31.78.12\r\n' ;;
"compose exec -T redis-2 redis-cli info replication") printf '# Replication\r\nrole:master\r\nconnected_slaves:1\r\n' ;;`

func TestDockerPrimary(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(withSentinel, old) {
			t.Fatalf("the script does not contain %q", old)
		}
		return strings.Replace(withSentinel, old, new, 1)
	}
	for _, c := range []struct{ script, want, why string }{
		{withSentinel, "heavy-redis-2-1", ""},
		{change(`"sentinel-1"`, `"writer"`), "", ErrNoFailover.Error()},
		{change(`"healthy"`, `"starting"`), "", "heavy-redis-1 is starting"},
		{change("role:slave", "role:master\\r\\nconnected_slaves:1"), "", "both primaries"},
		{change("connected_slaves:1", "connected_slaves:0"), "", "not every other server replicates heavy-redis-2-1"},
		{change("role:master", "role:slave"), "", "no Redis server is a primary"},
	} {
		root, _ := fakeDocker(t, c.script)
		name, err := (&docker{root: root}).Primary(t.Context())
		if name != c.want || (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q (%v), want %q and %q", name, err, c.want, c.why)
		}
	}
}

// local/stack.sh performs the failover in both runtimes.
func TestFailover(t *testing.T) {
	root, received := fakeDocker(t, docker3)
	for _, r := range []Runtime{&docker{root: root}, &local{root: root}} {
		// The fake script fails for everything but scale 4.
		if err := r.Failover(t.Context()); err == nil || !slices.Equal(received(), []string{"failover"}) {
			t.Errorf("%s: %v", r.Name(), err)
		}
	}
}

// With Sentinels, Primary returns the server that they name, and an error while one of them is not ready.
func TestLocalPrimary(t *testing.T) {
	redistest.Require(t)
	d := redistest.StartSentinel(t, redistest.SentinelOptions{Quick: true, All: []redistest.Option{redistest.Password("secret")}})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "redis.password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	layout, health := "sentinel", "ready"
	l := supervisor(t, func() string {
		return fmt.Sprintf(`{"run_dir":%q,"redis":{"layout":%q,"addrs":["%s"],"master_name":%q},"processes":[
			{"name":"redis-1","role":"redis","address":%q,"state":"ready"},
			{"name":"redis-2","role":"redis","address":%q,"state":"ready"},
			{"name":"redis-3","role":"redis","address":%q,"state":"ready"},
			{"name":"redis","role":"redis","address":"127.0.0.1:6379","state":"ready"},
			{"name":"reader-1","role":"reader","state":"not ready"},
			{"name":"sentinel-1","role":"sentinel","state":%q}]}`,
			dir, layout, strings.Join(d.Addrs(), `","`), redistest.SentinelName, d.Servers()[0].Addr(), d.Servers()[1].Addr(), d.Servers()[2].Addr(), health)
	})
	for range 2 {
		now := d.Primary()
		want := fmt.Sprint("redis-", slices.Index(d.Servers(), now)+1)
		if name, err := l.Primary(t.Context()); err != nil || name != want {
			t.Errorf("the primary is %q (%v), want %s", name, err, want)
		}
		if r, err := l.Redis(t.Context()); err != nil || r != (RedisServer{Addr: now.Addr(), Password: "secret"}) {
			t.Errorf("Redis is at %+v (%v), want %s", r, err, now.Addr())
		}
		d.Failover()
		d.WaitStable()
	}
	health = "degraded"
	if _, err := l.Primary(t.Context()); err == nil || err.Error() != "sentinel-1 is degraded" {
		t.Errorf("got %v, want that sentinel-1 is degraded", err)
	}
	layout = "single"
	if r, err := l.Redis(t.Context()); err != nil || r != (RedisServer{Addr: "127.0.0.1:6379", Password: "secret"}) {
		t.Errorf("a single Redis is at %+v (%v)", r, err)
	}
	if _, err := l.Primary(t.Context()); !errors.Is(err, ErrNoFailover) {
		t.Errorf("got %v, want ErrNoFailover", err)
	}
}

// supervisor is a fake of the local stack's supervisor.
func supervisor(t *testing.T, state func() string) *local {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/api/state":
			fmt.Fprint(w, state())
		case r.URL.Path == "/api/scale" && string(body) == `{"readers":4}`:
			fmt.Fprint(w, `{}`)
		default:
			http.Error(w, `{"detail":"between 1 and 20"}`, http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	return &local{addresses: Addresses{Dashboard: s.Listener.Addr().String(), Direct: "127.0.0.1:8081"}}
}

func TestLocal(t *testing.T) {
	victim := exec.Command("sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan error, 1)
	var dead atomic.Bool
	go func() {
		err := victim.Wait()
		dead.Store(true)
		died <- err
	}()
	restarted := httptest.NewServer(http.NotFoundHandler()) // the reader after its restart
	defer restarted.Close()
	pid := victim.Process.Pid
	var polls atomic.Int64 // polls since the process died, which the supervisor notices late
	l := supervisor(t, func() string {
		now := pid
		if dead.Load() && polls.Add(1) > 3 {
			now = 99
		}
		return fmt.Sprintf(`{"processes":[{"name":"redis","role":"redis","address":"127.0.0.1:6379","external":true},
			{"name":"reader-1","role":"reader","address":%q,"pid":%d},
			{"name":"reader-direct","role":"reader","address":"127.0.0.1:8081","pid":0}]}`, restarted.Listener.Addr(), now)
	})
	readers, err := l.Readers(t.Context())
	if want := []Reader{{"reader-1", restarted.Listener.Addr().String()}}; err != nil || !slices.Equal(readers, want) {
		t.Errorf("readers %v (%v), want %v", readers, err, want)
	}
	l.addresses.RedisUsername, l.addresses.RedisPassword = "me", "secret"
	if r, err := l.Redis(t.Context()); err != nil || r != (RedisServer{"127.0.0.1:6379", "me", "secret"}) {
		t.Errorf("Redis: %+v (%v)", r, err)
	}
	if err := l.Scale(t.Context(), 4); err != nil {
		t.Error(err)
	}
	if err := l.Scale(t.Context(), 40); err == nil || !strings.Contains(err.Error(), "between 1 and 20") {
		t.Errorf("scale to 40: %v", err)
	}
	for _, name := range []string{Redis, "reader-direct", "nobody"} {
		if _, err := l.Kill(t.Context(), name); err == nil {
			t.Errorf("%s was killed, although it is external, not running or not there", name)
		}
	}
	revive, err := l.Kill(t.Context(), "reader-1")
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-died; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v, want SIGKILL", err)
	}
	if err := revive(t.Context()); err != nil || polls.Load() < 4 {
		t.Errorf("revive returned after %d polls (%v), want at least 4", polls.Load(), err)
	}
}

func TestLocalNotRunning(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	l := &local{addresses: Addresses{Dashboard: s.Listener.Addr().String()}}
	if _, err := l.Readers(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
}

func TestProcessUsage(t *testing.T) {
	text := "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.25\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.5e+07\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }))
	defer s.Close()
	u, err := ProcessUsage(t.Context(), s.URL)
	if err != nil || u != (Usage{CPU: 1250 * time.Millisecond, Memory: 25_000_000}) {
		t.Errorf("got %+v (%v)", u, err)
	}
	text = "# TYPE other counter\nother 1\n"
	if _, err := ProcessUsage(t.Context(), s.URL); !errors.Is(err, ErrNoUsage) {
		t.Errorf("got %v, want ErrNoUsage", err)
	}
}

func TestAwaitReportsWhatIsMissing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 {
			cancel()
		}
		fmt.Fprint(w, `{"ready":true,"synced":true,"applied_version":3,"newest_version":4}`)
	}))
	defer s.Close()
	err := Await(ctx, time.Hour, s.Listener.Addr().String())
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "version 3 of 4") {
		t.Errorf("got %v", err)
	}
	if err := Await(t.Context(), time.Millisecond, s.Listener.Addr().String()); err == nil || !strings.Contains(err.Error(), "not done after 1ms") {
		t.Errorf("got %v", err)
	}
}
