package standin

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPack unpacks an archive with tar and compares the files and links.
func TestPack(t *testing.T) {
	source := t.TempDir()
	for path, content := range map[string]string{"a/file": "1", "a/testdata/skipped": "2", "b/file": "3"} {
		path = filepath.Join(source, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../b/file", filepath.Join(source, "a/link")); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	err := pack(&archive, func(r *rootfs) error {
		return errors.Join(
			r.copyTree(source, "/copy", func(name string) bool { return name == "testdata" }),
			r.programs("sh", "sh"),
			r.dir("/data", 0o755, owner{999, 1000}),
			r.dir("/data", 0o700, root), // the first one counts
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	headers := make(map[string]*tar.Header)
	contents := make(map[string]string)
	for reader := tar.NewReader(&archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if headers[header.Name] != nil {
			t.Errorf("%s is in the archive twice", header.Name)
		}
		headers[header.Name] = header
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		contents[header.Name] = string(content)
	}
	if contents["copy/a/file"] != "1" || contents["copy/b/file"] != "3" || headers["copy/a/testdata/skipped"] != nil {
		t.Errorf("the tree was copied as %q", contents["copy/a/file"])
	}
	for name, target := range map[string]string{"copy/a/link": "../b/file", "lib": "usr/lib", "bin": "usr/bin"} {
		if h := headers[name]; h == nil || h.Typeflag != tar.TypeSymlink || h.Linkname != target {
			t.Errorf("%s is %v, want a link to %s", name, h, target)
		}
	}
	if h := headers["data/"]; h == nil || h.Uid != 999 || h.Gid != 1000 || h.Mode != 0o755 {
		t.Errorf("/data is %v", h)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if h := headers[strings.TrimPrefix(merged(shell), "/")]; h == nil || h.Mode&0o111 == 0 {
		t.Errorf("%s is %v", shell, h)
	}
	for name := range headers {
		if strings.HasPrefix(name, "lib/") || strings.HasPrefix(name, "lib64/") {
			t.Errorf("%s would replace a link of the root file system by a directory", name)
		}
	}
}
