package local

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"heavy-read-api/internal/stack/rundir"
)

// If RUNTIME=docker cannot work, the reason is printed once, with a setting that works.
func TestDockerThatCannotWork(t *testing.T) {
	const (
		noDaemon   = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
		noRegistry = "dial tcp: lookup registry.example: no such host"
	)
	for _, tt := range []struct{ name, docker, want string }{
		{"daemon", "echo '" + noDaemon + "' >&2; exit 1", noDaemon},
		{"registry", `case "$1 $2" in
"compose pull") echo "Error response from daemon: Get https://registry.example/v2/: ` + noRegistry + `" >&2; exit 1 ;;
"compose version") echo 2.40.3 ;;
esac`, noRegistry},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := inTree(t, []string{"RUNTIME=docker", "RUN_DIR=" + t.TempDir(), pathWith(t, map[string]string{"docker": "#!/bin/sh\n" + tt.docker})}, "start")
			if code == 0 || strings.Count(out, tt.want) != 1 || strings.Count(out, "error: RUNTIME=docker, but") != 1 || strings.Count(out, "RUNTIME=local works") != 1 {
				t.Errorf("exit code %d, want one that is not 0, and each sentence once\n%s", code, out)
			}
		})
	}
}

// A daemon that hangs does not block the commands.
func TestDockerThatHangs(t *testing.T) {
	t.Parallel()
	env := append(testEnv(t), "RUNTIME=", pathWith(t, map[string]string{"docker": "#!/bin/sh\n[ \"$1\" != version ] || exec sleep 600"}))
	out, code := inTree(t, env, "runtime")
	if want := "local docker's daemon has not answered for 5s\n"; code != 0 || out != want {
		t.Errorf("exit code %d, %q, want %q", code, out, want)
	}
}

// Ctrl-C while the images are pulled does not start the local stack.
func TestInterruptedStartStartsNothing(t *testing.T) {
	dir := t.TempDir()
	path := pathWith(t, map[string]string{"docker": `#!/bin/sh
case "$1 $2" in
"compose version") echo 2.40.3 ;;
"compose pull") kill -INT "$PPID"; exec sleep 60 ;;
esac
`})
	out, code := inTree(t, append(testEnv(t), path, "RUNTIME=", "RUN_DIR="+dir), "start")
	if code != 1 || !strings.HasSuffix(out, "error: interrupted while the images were pulled and built\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "stack.log")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a supervisor was started: %v", err)
	}
}

// The first command compiles, after a message. Later ones use the program that is there, also while the
// tree does not compile.
func TestFirstStartSaysThatItCompiles(t *testing.T) {
	dir := makeTree(t)
	if err := os.Remove(filepath.Join(dir, "bin", "local")); err != nil {
		t.Fatal(err)
	}
	path := pathWith(t, map[string]string{"go": `#!/bin/sh
[ "$1" = build ] || exit 0
echo compiler runs
[ -z "$BROKEN" ] || exit 1
printf '#!/bin/sh\necho "$@"\n' >bin/local
chmod +x bin/local
`})
	for _, tt := range []struct {
		command, broken, want string
		code                  int
	}{
		{"health", "yes", "Compiling; the first time takes a minute or two.\ncompiler runs\n", 1},
		{"start", "", "Compiling; the first time takes a minute or two.\ncompiler runs\nstart\n", 0},
		{"start", "", "compiler runs\nstart\n", 0},
		{"start", "yes", "compiler runs\n", 1},
		{"health", "yes", "health\n", 0},
		{"stop", "yes", "stop\n", 0},
	} {
		out, code := execute(t, dir, []string{path, "GO=go", "BROKEN=" + tt.broken}, "sh", "local/stack.sh", tt.command)
		if out != tt.want || code != tt.code {
			t.Errorf("%s: exit code %d, output\n%s\nwant\n%s", tt.command, code, out, tt.want)
		}
	}
}

// Where there is no Go, or one that is too old, Docker compiles. Without both, the message names both.
func TestStackWithoutGo(t *testing.T) {
	const compiles = `#!/bin/sh
case "$*" in
"compose --file local/build.yaml build"*) echo "built for $GOOS" ;;
create*) echo id1 ;;
"cp id1:/local "*) printf '#!/bin/sh\necho "$@"\n' >"$3"; chmod +x "$3"; echo copied >&2 ;;
rm*) echo "$2" ;;
*) ;;
esac
`
	const noDaemon = "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n"
	const oldGo = "#!/bin/sh\necho 'go.mod requires go >= 1.26' >&2\nexit 1\n"
	compiled := "Compiling; the first time takes a minute or two.\nbuilt for " + goruntime.GOOS + "\nhealth\n"
	for _, tt := range []struct {
		name     string
		programs map[string]string
		code     int
		want     string
	}{
		{"only Docker", map[string]string{"docker": compiles}, 0, compiled},
		{"an old Go", map[string]string{"docker": compiles, "go": oldGo}, 0, compiled},
		{"only an old Go", map[string]string{"docker": noDaemon, "go": oldGo}, 1, "go.mod requires go >= 1.26\n"},
		{"no daemon", map[string]string{"docker": noDaemon}, 1, "error: the stack needs Docker (Cannot connect to the Docker daemon), or Go 1.26 or newer on PATH (https://go.dev/dl)\n"},
		{"neither", nil, 1, "error: the stack needs Docker (docker is not installed), or Go 1.26 or newer on PATH (https://go.dev/dl)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := makeTree(t)
			if err := os.Remove(filepath.Join(dir, "bin", "local")); err != nil {
				t.Fatal(err)
			}
			bin, _, _ := strings.Cut(strings.TrimPrefix(pathWith(t, tt.programs), "PATH="), ":")
			for _, name := range []string{"sh", "dirname", "uname", "tr", "mkdir", "mv", "tail", "chmod"} { // and nothing else
				program, err := exec.LookPath(name)
				if err == nil {
					err = os.Symlink(program, filepath.Join(bin, name))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			out, code := execute(t, dir, []string{"PATH=" + bin, "GO="}, filepath.Join(bin, "sh"), "local/stack.sh", "health")
			if code != tt.code || !strings.HasSuffix(out, tt.want) {
				t.Errorf("exit code %d, output\n%s\nwant %d and\n%s", code, out, tt.code, tt.want)
			}
		})
	}
}

// The choice of the runtime and the reason that is printed.
func TestChoice(t *testing.T) {
	works := fakePath(t)
	noDaemon := pathWith(t, map[string]string{"docker": "#!/bin/sh\necho 'no daemon' >&2\nexit 1\n"})
	for _, tt := range []struct {
		name, want string
		code       int
		env        []string
	}{
		{"forced", "local RUNTIME=local\n", 0, []string{works, "RUNTIME=local"}},
		{"forced to Docker", "docker RUNTIME=docker\n", 0, []string{works, "RUNTIME=docker"}},
		{"unknown", "error: RUNTIME=podman: use local or docker\n", 2, []string{works, "RUNTIME=podman"}},
		{"Docker works", "docker Docker Compose works\n", 0, []string{works, "RUNTIME=", "EMPTY=yes"}},
		{"containers run", "docker the stack runs in Docker\n", 0, []string{works, "RUNTIME="}},
		{"no daemon", "local docker's daemon does not answer (no daemon)\n", 0, []string{noDaemon, "RUNTIME="}},
		{"forced without a daemon", "error: RUNTIME=docker, but docker's daemon does not answer (no daemon); RUNTIME=local works without Docker\n", 2, []string{noDaemon, "RUNTIME=docker"}},
	} {
		dir := t.TempDir()
		out, code := inTree(t, append(tt.env, "STATE="+dir, "RUN_DIR="+dir), "runtime")
		if out != tt.want || code != tt.code {
			t.Errorf("%s: exit code %d, %q, want %q", tt.name, code, out, tt.want)
		}
	}

	// A supervisor that runs is preferred to containers, unless the stack was started in Docker last.
	dir := t.TempDir()
	claim, err := rundir.Take(dir, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Release()
	for last, want := range map[string]string{"": "local the stack runs without Docker\n", "local": "local the stack runs without Docker\n", "docker": "docker the stack runs in Docker\n"} {
		if err := os.WriteFile(filepath.Join(dir, runtimeFile), []byte(last+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := inTree(t, []string{works, "RUNTIME=", "STATE=" + dir, "RUN_DIR=" + dir}, "runtime"); out != want || code != 0 {
			t.Errorf("both run, %q was started last: exit code %d, %q, want %q", last, code, out, want)
		}
	}
}
