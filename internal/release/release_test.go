package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestReproducible builds a release twice, from copies of the sources in different folders.
func TestReproducible(t *testing.T) {
	build := func() map[string][]byte {
		root, out := t.TempDir(), filepath.Join(t.TempDir(), "dist")
		for _, name := range slices.Concat(documents, []string{"go.mod", "go.sum", "internal", "writer", "failover", "dashboard"}) {
			copyTree(t, root, name)
		}
		changelog := "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-02\n- The first release.\n"
		if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte(changelog), 0o644); err != nil {
			t.Fatal(err)
		}
		r := release{root: root, out: out, version: "v1.2.3", revision: "0123abc", time: time.Unix(1767323045, 0).UTC(), programs: []string{"failover", "writer"}, images: images[:1]}
		if err := r.build([]platform{{"linux", "arm64"}}); err != nil {
			t.Fatal(err)
		}
		files, err := readTree(out, ".")
		if err != nil {
			t.Fatal(err)
		}
		results := make(map[string][]byte)
		for _, f := range files {
			results[f.name] = f.content
		}
		return results
	}
	first, second := build(), build()
	const name, imageName = "heavy-read-api_1.2.3_linux_arm64", "heavy-read-api-writer-image_1.2.3_linux_arm64"
	for _, file := range []string{"NOTES.md", "SHA256SUMS", name + ".tar.gz", name + ".cdx.json", imageName + ".tar", imageName + ".cdx.json"} {
		if len(first[file]) == 0 {
			t.Errorf("there is no %s", file)
		} else if !bytes.Equal(first[file], second[file]) {
			t.Errorf("%s differs between two builds", file)
		}
	}
	if len(first) != 6 || len(second) != 6 {
		t.Errorf("got %d and %d files, want 6", len(first), len(second))
	}
	checkImage(t, first[imageName+".tar"])
	content := unpack(t, first[name+".tar.gz"])
	for _, file := range []string{
		"failover", "writer", "README.md", "LICENSE", "docs/operations.md", "licences/go/LICENSE", "licences/github.com/redis/go-redis/v9/LICENSE",
	} {
		if len(content[name+"/"+file]) == 0 {
			t.Errorf("the archive has no %s", file)
		}
	}
	var b bom
	if err := json.Unmarshal(first[name+".cdx.json"], &b); err != nil {
		t.Fatal(err)
	}
	redis := slices.IndexFunc(b.Components, func(c component) bool { return c.Name == "github.com/redis/go-redis/v9" })
	if redis < 0 || len(b.Components[redis].Hashes) != 1 {
		t.Errorf("the SBOM lacks go-redis or its hash: %s", first[name+".cdx.json"])
	}
}

func copyTree(t *testing.T, root, name string) {
	t.Helper()
	files, err := readTree("../..", name)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		to := filepath.Join(root, f.name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, f.content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// unpack returns the files of a compressed archive, and checks that they have the time of the commit and no owner.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	uncompressed, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	return filesOf(t, uncompressed)
}

func filesOf(t *testing.T, archive io.Reader) map[string][]byte {
	t.Helper()
	content := make(map[string][]byte)
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			return content
		} else if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 1767323045 || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s has the time %v and the owner %d %q", h.Name, h.ModTime, h.Uid, h.Uname)
		}
		if content[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNotes(t *testing.T) {
	const changelog = "# Changelog\n\n## [Unreleased]\n- later\n\n## [1.2.0] - 2026-01-02\n### Added\n- one\n\n## [1.1.0]\n- two\n\n## [1.0.0]\n\n[1.0.0]: https://example.org\n"
	for version, want := range map[string]string{"v1.2.0": "### Added\n- one\n", "v1.1.0": "- two\n"} {
		if got, err := notesOf(changelog, version); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", version, got, err, want)
		}
	}
	for _, version := range []string{"v1.0.0", "v1.2", "v9.9.9"} { // an empty section, a prefix, no section
		if got, err := notesOf(changelog, version); err == nil || !strings.Contains(err.Error(), "insert the heading") {
			t.Errorf("%s: got %q, %v, want an error that says what to insert", version, got, err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, valid := range map[string]bool{"v1.2.3": true, "v1.2.3-rc.1": true, "1.2.3": false, "v1.2": false, "v1.2.3/..": false, "v1.2.3 -X a=b": false} {
		if err := checkVersion(version); (err == nil) != valid {
			t.Errorf("%q: %v", version, err)
		}
	}
}
