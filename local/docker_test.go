package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDocker stands in for docker with Compose. Three readers run; the gateway lists what is in
// $STATE/list, and one reader more each time it is asked, up to $LISTS.
const fakeDocker = `#!/bin/sh
case "$1 $2" in
"compose exec")
	n=$(($(cat "$STATE/asked" 2>/dev/null || echo 0) + 1))
	echo "$n" >"$STATE/asked"
	for i in 1 2 3; do
		[ "$i" -gt "$n" ] || [ "$i" -gt "$LISTS" ] || echo "      - {host: 10.1.0.1$i, port: 80, weight: 1}"
	done
	;;
"compose ps") printf 'id1\nid2\nid3\n' ;;
"compose port") echo "${PUBLISHED-127.0.0.1:1}" ;;
"compose version") echo "${COMPOSE_VERSION:-2.40.3}" ;;
"compose logs") echo "files $COMPOSE_FILE, services $*" ;;
"compose --progress") echo "files $COMPOSE_FILE, $*" ;;
"inspect --format")
	shift 3
	for id; do
		i=${id#id}
		[ -z "$READER" ] || { echo "stack-reader-$i $READER"; continue; }
		echo "stack-reader-$i running/healthy 10.2.0.1$i 10.1.0.1$i"
	done
	;;
*) ;;
esac
`

// docker runs docker.sh with the fake, whose gateway lists so many readers in the end. Both keep their
// files in the folder state.
func docker(t *testing.T, state, lists string, args ...string) (output string, code int) {
	t.Helper()
	return run(t, append([]string{"STATE=" + state, "RUN_DIR=" + state, "LISTS=" + lists}, fakePath(t)),
		append([]string{"sh", "local/docker.sh"}, args...)...)
}

// fakePath returns a PATH, as an entry of an environment, on which docker is the fake and nobody sleeps.
func fakePath(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for name, text := range map[string]string{"docker": fakeDocker, "sleep": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return "PATH=" + bin + ":" + os.Getenv("PATH")
}

// run runs a command in the tree's root, with env beside the environment of the test.
func run(t *testing.T, env []string, command ...string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Healthy containers are not all: the gateway gets a new reader some seconds later.
func TestStartAndScaleInDockerWaitForTheRotation(t *testing.T) {
	for _, tt := range []struct {
		args []string
		text string
	}{{[]string{"start"}, "The stack is up"}, {[]string{"scale", "3"}, "3 readers are in rotation"}} {
		state := t.TempDir()
		out, code := docker(t, state, "3", tt.args...)
		if code != 0 || !strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 0 and %q\n%s", tt.args, code, tt.text, out)
		}
		if asked, _ := os.ReadFile(filepath.Join(state, "asked")); string(asked) != "3\n" {
			t.Errorf("%v: the gateway was asked for its list %q times, want 3: until all are listed", tt.args, asked)
		}

		out, code = docker(t, t.TempDir(), "2", tt.args...)
		const want = "error: the gateway does not list every reader: stack-reader-3 (running/healthy)"
		if code != 1 || !strings.Contains(out, want) || strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 1 and %q\n%s", tt.args, code, want, out)
		}
	}
}

// A stack that was started with Sentinels keeps them until REDIS=single or make clean.
func TestRedisInDocker(t *testing.T) {
	const overlay = "docker-compose.sentinel.yaml"
	sentinel := "files docker-compose.yaml:" + overlay + ", services compose logs --follow --tail 50 redis redis-2 redis-3 sentinel-1 sentinel-2 sentinel-3\n"
	for _, tt := range []struct{ redis, files, last, want string }{
		{"", "", "", "files , services compose logs --follow --tail 50 redis\n"},
		{"single", "", "sentinel", "files , services compose logs --follow --tail 50 redis\n"},
		{"sentinel", "", "", sentinel},
		{"", "", "sentinel", sentinel},
		{"", "docker-compose.yaml:" + overlay, "", sentinel},
		{"sentinel", "docker-compose.yaml:" + overlay, "", sentinel},
		{"sentinel", "docker-compose.yaml", "single", sentinel},
	} {
		dir := t.TempDir()
		if tt.last != "" {
			if err := os.WriteFile(filepath.Join(dir, "docker-redis"), []byte(tt.last+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("REDIS", tt.redis)
		t.Setenv("COMPOSE_FILE", tt.files)
		out, _ := docker(t, dir, "3", "logs", "redis")
		if out != tt.want {
			t.Errorf("REDIS=%q, COMPOSE_FILE=%q, started with %q last: %q, want %q", tt.redis, tt.files, tt.last, out, tt.want)
		}
	}
	dir := t.TempDir()
	t.Setenv("REDIS", "sentinel")
	docker(t, dir, "3", "start")
	if last, err := os.ReadFile(filepath.Join(dir, "docker-redis")); string(last) != "sentinel\n" {
		t.Errorf("what was started is kept as %q, %v", last, err)
	}
}

// The failover runs in the network of the Sentinels, which have no port on this machine.
func TestFailoverInDocker(t *testing.T) {
	t.Setenv("COMPOSE_FILE", "")
	for redis, want := range map[string]struct {
		code int
		text string
	}{
		"sentinel": {0, "files docker-compose.yaml:docker-compose.sentinel.yaml, compose --progress quiet run --rm --no-deps -T failover\n"},
		"single":   {1, "error: there is nothing to fail over to: this is a single Redis; REDIS=sentinel starts three\n"},
	} {
		t.Setenv("REDIS", redis)
		if out, code := docker(t, t.TempDir(), "3", "failover"); code != want.code || out != want.text {
			t.Errorf("REDIS=%s: exit code %d, %q; want %d, %q", redis, code, out, want.code, want.text)
		}
	}
}
