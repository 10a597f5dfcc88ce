package local

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/layout"
)

// faultDocker is a docker with one container, which writes down the commands of faults. A pause is begun although its
// command fails if the file "fails" exists.
const faultDocker = `#!/bin/sh
cd "$STATE"
case "$1 $2" in
"compose ps") echo id ;;
"inspect id") echo '[{"Name": "/reader-1", "Config": {"Labels": {"com.docker.compose.service": "reader"}}, "State": {"Status": "running", "Pid": 7}}]' ;;
"pause "*|"unpause "*|"network "*)
	echo "$*" >>commands
	[ "$1" != pause ] || ! [ -e fails ] || { echo "no answer" >&2; exit 1; }
	;;
esac
`

// newObserved returns a stage with faultDocker, and the folder of its files.
func newObserved(t *testing.T, ctx context.Context) (*observed, string) {
	t.Helper()
	state := t.TempDir()
	_, path, _ := strings.Cut(pathWith(t, map[string]string{"docker": faultDocker}), "=")
	t.Setenv("PATH", path)
	t.Setenv("STATE", state)
	p := &program{ctx: ctx, out: io.Discard, err: io.Discard}
	c := &compose{command: []string{"docker", "compose"}, redis: layout.Single, env: os.Environ()}
	return &observed{docker: &docker{program: p, compose: c}, log: events.NewLog()}, state
}

func commands(t *testing.T, state string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(state, "commands"))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ", ")
}

// A container does not stay paused: not after an interrupt, and not if the command that paused it reports a failure.
func TestFaultInDockerEnds(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	o, state := newObserved(t, ctx)
	defer interrupt()
	interruptAfterCommand(t, state, interrupt)
	if err := o.fault("freeze", "reader-1"); err == nil {
		t.Error("no error after an interrupt")
	}
	if got := commands(t, state); got != "pause reader-1, unpause reader-1" {
		t.Errorf("after an interrupt the commands are %q", got)
	}

	o, state = newObserved(t, t.Context())
	if err := os.WriteFile(filepath.Join(state, "fails"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.fault("freeze", "reader-1"); err == nil || !strings.HasSuffix(err.Error(), "no answer") {
		t.Errorf("error %v", err)
	}
	if got := commands(t, state); got != "pause reader-1, unpause reader-1" || len(o.log.Events()) != 0 {
		t.Errorf("after a failed command the commands are %q, the events %v", got, o.log.Events())
	}
	if err := o.fault("freeze", "reader-2"); err == nil || err.Error() != `there is no container "reader-2"` {
		t.Errorf("error %v", err)
	}
}

// A container that was cut off is found by the name of its service again.
func TestCutInDockerRestoresTheName(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	t.Setenv("COMPOSE_PROJECT_NAME", "")
	o, state := newObserved(t, ctx)
	interruptAfterCommand(t, state, interrupt)
	_ = o.fault("cut", "reader-1")
	const want = "network disconnect heavy-read-api_data reader-1, network connect --alias reader heavy-read-api_data reader-1"
	if got := commands(t, state); got != want {
		t.Errorf("the commands are %q, want %q", got, want)
	}
}

// interruptAfterCommand calls interrupt in another goroutine, once docker was called for a fault.
func interruptAfterCommand(t *testing.T, state string, interrupt func()) {
	t.Helper()
	go func() {
		for commands(t, state) == "" && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		interrupt()
	}()
}
