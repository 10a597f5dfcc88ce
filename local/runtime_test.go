package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stackScript runs stack.sh with these programs in front of the PATH, RUNTIME, and nothing in its run folder.
func stackScript(t *testing.T, programs map[string]string, runtime string, args ...string) (output string, code int) {
	t.Helper()
	bin := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "RUN_DIR=" + t.TempDir(), "RUNTIME=" + runtime}
	return run(t, env, append([]string{"sh", "local/stack.sh"}, args...)...)
}

// RUNTIME=docker that cannot work says once why, and what works.
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
			out, code := stackScript(t, map[string]string{"docker": tt.docker}, "docker", "start")
			if code == 0 || strings.Count(out, tt.want) != 1 || strings.Count(out, "error: RUNTIME=docker, but") != 1 || strings.Count(out, "RUNTIME=local works") != 1 {
				t.Errorf("exit code %d, want one that is not 0, and each sentence once\n%s", code, out)
			}
		})
	}
}

// The first start without Docker has to compile, and says so before.
func TestFirstStartSaysThatItCompiles(t *testing.T) {
	// In a copy of the scripts, because here bin/local may be there.
	dir := t.TempDir()
	scripts, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "local"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "local", name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	makes := filepath.Join(dir, "make")
	if err := os.WriteFile(makes, []byte("#!/bin/sh\necho compiler runs\nmkdir -p bin\nprintf '#!/bin/sh\\necho started\\n' >bin/local\nchmod +x bin/local\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Compiling; the first time takes a minute or two.\ncompiler runs\nstarted\n", "compiler runs\nstarted\n"} {
		cmd := exec.CommandContext(t.Context(), "sh", "local/stack.sh", "start")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MAKE="+makes, "RUNTIME=local", "RUN_DIR="+filepath.Join(dir, "run"))
		out, err := cmd.CombinedOutput()
		if _, after, _ := strings.Cut(string(out), "forces it)\n"); err != nil || after != want {
			t.Errorf("%v, output\n%s\nwant\n%s", err, out, want)
		}
	}
}
