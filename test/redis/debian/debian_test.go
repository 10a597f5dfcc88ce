package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMainMirror(t *testing.T) {
	const targets = `main http://deb.example.org/debian-security/
contrib http://deb.example.org/debian/
main http://deb.example.org/debian/
main http://other.example.org/debian/
`
	if got := mainMirror(targets); got != "http://deb.example.org/debian/" {
		t.Errorf("mainMirror = %q", got)
	}
	if got := mainMirror("contrib http://deb.example.org/debian/\n"); got != "" {
		t.Errorf("mainMirror without main = %q", got)
	}
}

// TestWrappers runs a program through its wrapper, with a script instead of the loader, which prints its arguments.
func TestWrappers(t *testing.T) {
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "moved here")
	for path, content := range map[string]string{
		"root/usr/lib/ld-linux-test.so.2": "#!/bin/sh\nprintf '%s\\n' \"$@\"\n",
		"root/usr/bin/valkey-server":      "",
		"root/usr/bin/valkey-cli":         "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeWrappers(dir, target, "valkey"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, target); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(target, "bin/redis-cli"), "two words", "ping").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := strings.Join([]string{"--library-path", target + "/root/usr/lib", target + "/root/usr/bin/valkey-cli", "two words", "ping", ""}, "\n")
	if string(out) != want {
		t.Errorf("the wrapper ran the loader with\n%swant\n%s", out, want)
	}
}
