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
"compose port") echo 127.0.0.1:1 ;;
"inspect --format")
	shift 3
	for id; do
		i=${id#id}
		echo "stack-reader-$i running/healthy 10.2.0.1$i 10.1.0.1$i"
	done
	;;
*) ;;
esac
`

// docker runs docker.sh with the fake, whose gateway lists so many readers in the end.
func docker(t *testing.T, lists string, args ...string) (output, state string, code int) {
	t.Helper()
	bin, state := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"docker": fakeDocker, "sleep": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"local/docker.sh"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "STATE="+state, "LISTS="+lists)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), state, cmd.ProcessState.ExitCode()
}

// Healthy containers are not all: the gateway gets a new reader some seconds later.
func TestStartAndScaleInDockerWaitForTheRotation(t *testing.T) {
	for _, tt := range []struct {
		args []string
		text string
	}{{[]string{"start"}, "The stack is up"}, {[]string{"scale", "3"}, "3 readers are in rotation"}} {
		out, state, code := docker(t, "3", tt.args...)
		if code != 0 || !strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 0 and %q\n%s", tt.args, code, tt.text, out)
		}
		if asked, _ := os.ReadFile(filepath.Join(state, "asked")); string(asked) != "3\n" {
			t.Errorf("%v: the gateway was asked for its list %q times, want 3: until all are listed", tt.args, asked)
		}

		out, _, code = docker(t, "2", tt.args...)
		const want = "error: the gateway does not list every reader: stack-reader-3 (running/healthy)"
		if code != 1 || !strings.Contains(out, want) || strings.Contains(out, tt.text) {
			t.Errorf("%v: exit code %d, want 1 and %q\n%s", tt.args, code, want, out)
		}
	}
}
