package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
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
		"licences/github.com/prometheus/client_golang/internal/github.com/golang/gddo/LICENSE", "examples/client.py",
	} {
		if len(content[name+"/"+file]) == 0 {
			t.Errorf("the archive has no %s", file)
		}
	}
	for file, text := range content {
		if strings.HasSuffix(file, "_test.go") {
			t.Errorf("the archive has %s", file)
		}
		if strings.Contains(file, "/licences/") || path.Ext(file) != ".md" {
			continue
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]+)[^)\s]*\)`).FindAllSubmatch(text, -1) {
			to := path.Join(path.Dir(file), string(m[1]))
			if !strings.Contains(string(m[1]), "://") && len(content[to]) == 0 {
				t.Errorf("%s links to %s, which is not in the archive", file, to)
			}
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
	// The name and the form of the version by which vulnerabilities of Go's library are published.
	if want := "pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"); b.Components[0].PackageURL != want {
		t.Errorf("the SBOM has %s in place of %s", b.Components[0].PackageURL, want)
	}
	for sbom, programs := range map[string]string{name: "failover writer", imageName: "writer failover dashboard"} {
		if want := `"value": "` + programs + `"`; !bytes.Contains(first[sbom+".cdx.json"], []byte(want)) {
			t.Errorf("%s.cdx.json does not name the programs %q", sbom, programs)
		}
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
		if err := os.WriteFile(to, f.content, fs.FileMode(f.mode)); err != nil {
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
		if got, err := notesOf(changelog, version); err == nil || !strings.Contains(err.Error(), "insert the heading") || !strings.Contains(err.Error(), "git tag --force "+version) {
			t.Errorf("%s: got %q, %v, want an error that says what to insert", version, got, err)
		}
	}
}

// TestCheck tries versions in a repository whose first commit has the tag v1.0.0, and the second one v1.2.3 and others. Then it
// copies a third commit.
func TestCheck(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CEILING_DIRECTORIES", os.TempDir())
	t.Chdir(t.TempDir())
	run := func(args ...string) {
		t.Helper()
		if _, err := git(args...); err != nil {
			t.Fatal(err)
		}
	}
	commit := func() {
		t.Helper()
		run("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--allow-empty", "--message=test")
	}
	expect := func(version, want string) {
		t.Helper()
		got, err := check(version)
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("version %q: got %q, want %q", version, got, want)
		}
	}
	expect("v1.2.3", "in a clone of the repository")
	run("init", "--quiet")
	commit()
	expect("", "tag it (git tag v1.2.3)")
	run("tag", "v1.0.0")
	run("tag", "nightly")
	expect("", "v1.0.0")
	commit()
	expect("v1.0.0", "git checkout v1.0.0")
	expect("v1.2.3", "git tag v1.2.3")
	run("tag", "v1.2.3")
	run("-c", "user.name=test", "-c", "user.email=test@localhost", "tag", "--annotate", "--message=test", "v1.2.3-rc.1")
	expect("v1.2.3", "v1.2.3")
	expect("v1.2.3-rc.1", "v1.2.3-rc.1")
	expect("", "choose one of them (make release VERSION=v1.2.3)")
	for _, version := range []string{"1.2.3", "v1.2", "v1.2.3/..", "v1.2.3 -X a=b", "nightly"} {
		expect(version, "is not a version: use v, three numbers")
	}
	if err := os.WriteFile("new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("v1.2.3", "commit or remove these first:\n?? new")

	if err := os.WriteFile(".git/info/exclude", []byte("ignored\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("ignored", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run("add", "new")
	commit()
	copied := t.TempDir()
	if err := export(copied); err != nil {
		t.Fatal(err)
	}
	if files, err := readTree(copied, "."); err != nil || len(files) != 1 || files[0].name != "new" {
		t.Errorf("the copy of the commit has %v, %v, want the file new", files, err)
	}
}
