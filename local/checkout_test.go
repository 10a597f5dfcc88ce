package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCheckoutOnWindows clones the tree as Git for Windows does by default, with CRLF in text files.
// Scripts and files that are mounted into containers must have the bytes that they have here.
func TestCheckoutOnWindows(t *testing.T) {
	source, clone := t.TempDir(), filepath.Join(t.TempDir(), "clone")
	for _, part := range []string{"apisix", "benchmark", "grafana", "internal/cache", "internal/post", "local", "prometheus", "redis", "test"} {
		if err := os.CopyFS(filepath.Join(source, part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".env.example", ".gitattributes", "Dockerfile", "Makefile", "docker-compose.yaml"} {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(source, name), content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	git("init", "--quiet")
	git("add", "--all")
	git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "tree")
	git("clone", "--quiet", "--config", "core.autocrlf=true", "--config", "core.eol=crlf", source, clone)

	files := 0
	err := fs.WalkDir(os.DirFS(clone), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".git" {
				return fs.SkipDir
			}
			return err
		}
		files++
		want, err := os.ReadFile(filepath.Join(source, path))
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(clone, path))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s differs: %d bytes, want %d", path, len(got), len(want))
		}
		return err
	})
	if err != nil || files < 100 {
		t.Errorf("%d files compared, %v", files, err)
	}
}
