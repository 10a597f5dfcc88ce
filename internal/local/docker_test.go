package local

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeDocker stands in for docker with Compose. A container has the name of its service and a number. The
// gateway lists the readers in $STATE/asked, one more each time its list is read, up to $LISTS. $HOST and
// $PORT are where every port of writer, gateway and readers is published.
const fakeDocker = `#!/bin/sh
case "$1 $2" in
"compose exec")
	n=$(($(cat "$STATE/asked" 2>/dev/null || echo 0) + 1))
	echo "$n" >"$STATE/asked"
	for i in 1 2 3; do
		[ "$i" -gt "$n" ] || [ "$i" -gt "$LISTS" ] || echo "      - {host: 10.1.0.1$i, port: 80, weight: 1}"
	done
	;;
"compose ps")
	[ -z "$EMPTY" ] || exit 0
	case $* in
	*reader) echo reader-1 reader-2 reader-3 ;;
	*) echo reader-1 reader-2 reader-3 writer-1 apisix-1 ;;
	esac
	;;
"compose config") printf 'reader\nwriter\napisix\n' ;;
"compose version") echo "${COMPOSE_VERSION:-2.40.3}" ;;
"compose logs") echo "files $COMPOSE_FILE, services $*" ;;
"compose --progress") echo "files $COMPOSE_FILE, $*" ;;
"inspect "*)
	shift
	comma='['
	for id; do
		i=${id#*-}
		port='[{"HostIp": "'${HOST-127.0.0.1}'", "HostPort": "'${PORT:-1}'"}]'
		cat <<-END
		$comma{"Name": "/stack-$id", "Config": {"Labels": {"com.docker.compose.service": "${id%-*}"}},
		"State": {"Status": "running", "Health": {"Status": "healthy", "Log": [{"Output": "old"}, {"Output": "${SAYS:-ready}"}]}},
		"NetworkSettings": {
			"Ports": {"80/tcp": $port, "8080/tcp": $port, "9080/tcp": $port, "9091/tcp": $port, "9092/tcp": null},
			"Networks": {"data": {"IPAddress": "10.2.0.1$i"}, "default": {"IPAddress": "10.1.0.1$i"}}}}
		END
		comma=,
	done
	echo ']'
	;;
*) ;;
esac
`

// fakePath returns a PATH, as an entry of an environment, on which docker is the fake.
func fakePath(t *testing.T) string { return pathWith(t, map[string]string{"docker": fakeDocker}) }

// pathWith returns a PATH, as an entry of an environment, that begins with these programs.
func pathWith(t *testing.T, programs map[string]string) string {
	t.Helper()
	bin := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return "PATH=" + bin + ":" + os.Getenv("PATH")
}

// inTree runs a command of the program in the root of the tree.
func inTree(t *testing.T, env []string, args ...string) (output string, code int) {
	t.Helper()
	return execute(t, "../..", append([]string{childEnvironment + "=1"}, env...), append([]string{testProgram(t)}, args...)...)
}

// dockerCommand runs a command with the fake, whose gateway lists up to lists readers. Both keep their files in the
// folder state.
func dockerCommand(t *testing.T, state, lists string, args ...string) (output string, code int) {
	t.Helper()
	return inTree(t, []string{"RUNTIME=docker", "STATE=" + state, "RUN_DIR=" + state, "LISTS=" + lists, fakePath(t)}, args...)
}

// Healthy containers are not enough: the gateway gets a new reader some seconds later.
func TestStartAndScaleInDockerWaitForTheRotation(t *testing.T) {
	for _, tt := range []struct {
		args []string
		text string
	}{{[]string{"start"}, "The stack is up"}, {[]string{"scale", "3"}, "3 readers are in rotation"}} {
		state := t.TempDir()
		out, code := dockerCommand(t, state, "3", tt.args...)
		if code != 0 || !strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 0 and %q\n%s", tt.args, code, tt.text, out)
		}
		if asked, _ := os.ReadFile(filepath.Join(state, "asked")); string(asked) != "3\n" {
			t.Errorf("%v: the gateway was asked for its list %q times, want 3: until all are listed", tt.args, asked)
		}

		out, code = dockerCommand(t, t.TempDir(), "2", tt.args...)
		const want = "error: the gateway does not list every reader: stack-reader-3 (ready)"
		if code != 1 || !strings.Contains(out, want) || strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 1 and %q\n%s", tt.args, code, want, out)
		}
	}
}

// A stack that was started with Sentinels keeps them until REDIS=single or make clean.
func TestRedisInDocker(t *testing.T) {
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
		out, _ := dockerCommand(t, dir, "3", "logs", "redis")
		if out != tt.want {
			t.Errorf("REDIS=%q, COMPOSE_FILE=%q, started with %q last: %q, want %q", tt.redis, tt.files, tt.last, out, tt.want)
		}
	}
	dir := t.TempDir()
	t.Setenv("REDIS", "sentinel")
	dockerCommand(t, dir, "3", "start")
	if last, err := os.ReadFile(filepath.Join(dir, "docker-redis")); string(last) != "sentinel\n" {
		t.Errorf("what was started is kept as %q, %v", last, err)
	}
	t.Setenv("REDIS", "cluster")
	if out, code := dockerCommand(t, dir, "3", "start"); code != 2 || !strings.Contains(out, "error: REDIS=cluster: use single or sentinel in Docker") {
		t.Errorf("REDIS=cluster: exit code %d\n%s", code, out)
	}
}

// A program that replaces this one may read the first of two variables with the same name.
func TestComposeFileIsSetOnce(t *testing.T) {
	t.Setenv("REDIS", "sentinel")
	t.Setenv("COMPOSE_FILE", "docker-compose.yaml")
	t.Setenv("RUN_DIR", t.TempDir())
	var files []string
	for _, e := range newCompose().env {
		if strings.HasPrefix(e, "COMPOSE_FILE=") {
			files = append(files, e)
		}
	}
	if want := []string{"COMPOSE_FILE=docker-compose.yaml:" + overlay}; !slices.Equal(files, want) {
		t.Errorf("%q, want %q", files, want)
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
		if out, code := dockerCommand(t, t.TempDir(), "3", "failover"); code != want.code || out != want.text {
			t.Errorf("REDIS=%s: exit code %d, %q; want %d, %q", redis, code, out, want.code, want.text)
		}
	}
}

// The output of a health check becomes state, note and detail, as without Docker.
func TestHealthInDocker(t *testing.T) {
	for says, want := range map[string]string{
		"":                                 "stack-reader-1  -  127.0.0.1:1  ready\n",
		"degraded: updates may be missing": "stack-reader-1  -  127.0.0.1:1  degraded: updates may be missing\n",
		"ready: Redis deletes posts":       "stack-reader-1  -  127.0.0.1:1  ready, Redis deletes posts\n",
		"primary of 2 Redis replicas":      "stack-reader-1  -  127.0.0.1:1  ready, primary of 2 Redis replicas\n",
		"<html>":                           "stack-reader-1  -  127.0.0.1:1  ready\n",
	} {
		t.Setenv("SAYS", says)
		if out, code := dockerCommand(t, t.TempDir(), "3", "health"); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d, want %q\n%s", says, code, want, out)
		}
	}
	t.Setenv("EMPTY", "yes")
	const want = "error: the stack is not running: make start\n"
	if out, code := dockerCommand(t, t.TempDir(), "3", "health"); code != 1 || out != want {
		t.Errorf("without containers: exit code %d, %q", code, out)
	}
}

func TestStateOfAContainer(t *testing.T) {
	for _, tt := range []struct{ status, health, says, want string }{
		{"running", "healthy", "ready", "ready"},
		{"running", "unhealthy", "not ready: loading: snapshot", "not ready: loading: snapshot"},
		{"running", "starting", "", "starting"},
		{"running", "", "", "running"},
		{"exited", "unhealthy", "ready", "exited"},
	} {
		var c container
		c.State.Status = tt.status
		if tt.health != "" {
			c.State.Health = &struct {
				Status string
				Log    []struct{ Output string }
			}{tt.health, []struct{ Output string }{{tt.says + "\n"}}}
		}
		if got := c.process().StateText(); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// A port that Docker publishes on all addresses is reached on the loopback address, over IPv4 if there is a choice.
func TestAddressOfAContainer(t *testing.T) {
	for want, published := range map[string][]string{
		"127.0.0.1:80": {"127.0.0.1"}, "192.0.2.7:80": {"192.0.2.7"}, "[::1]:80": {"::1"}, "[2001:db8::7]:80": {"2001:db8::7"},
	} {
		checkAddress(t, want, published...)
	}
	checkAddress(t, "127.0.0.1:80", "0.0.0.0")
	checkAddress(t, "127.0.0.1:80", "::", "0.0.0.0")
	checkAddress(t, "[::1]:80", "::")
	checkAddress(t, "")
}

func checkAddress(t *testing.T, want string, published ...string) {
	t.Helper()
	var c container
	var bindings []binding
	for _, ip := range published {
		bindings = append(bindings, binding{ip, "80"})
	}
	c.NetworkSettings.Ports = map[string][]binding{"8080/tcp": bindings}
	if got := c.address(8080); got != want {
		t.Errorf("published on %v: %q, want %q", published, got, want)
	}
	if _, _, err := net.SplitHostPort(want); want != "" && err != nil {
		t.Error(err)
	}
}

// An interrupt ends the wait for the gateway's list, which fails to be read from then on.
func TestWaitForTheRotationIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &docker{program: &program{ctx: ctx, out: io.Discard, pause: time.Minute}, compose: &compose{command: []string{"true"}}}
	ended := make(chan error, 1)
	go func() { ended <- d.awaitRotation() }()
	select {
	case err := <-ended:
		if err == nil || err.Error() != "interrupted" {
			t.Errorf("awaitRotation: %v, want an interruption", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("awaitRotation has not returned")
	}
}
