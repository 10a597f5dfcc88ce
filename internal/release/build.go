package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const project = "heavy-read-api"

// platform is a GOOS and a GOARCH.
type platform struct{ os, arch string }

var (
	platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}}
	programs  = []string{"auditor", "failover", "local", "reader", "writer"}
	// documents are files and folders that are part of every archive.
	documents = []string{".env.example", "CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "benchmark/benchmark-report.md", "docs"}
)

// release is a release of one commit.
type release struct {
	root     string    // folder of the repository
	out      string    // folder for the results
	version  string    // such as v1.2.3
	revision string    // commit
	time     time.Time // time of the commit, which every file in an archive gets
	programs []string  // folders of the programs
}

// build deletes the folder of the results and writes the release for the given platforms into it.
func (r release) build(platforms []platform) error {
	changelog, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	notes, err := notesOf(string(changelog), r.version)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	if err := r.write("NOTES.md", []byte(notes)); err != nil {
		return err
	}
	for _, p := range platforms {
		if err := r.buildPlatform(p); err != nil {
			return fmt.Errorf("build for %s/%s: %w", p.os, p.arch, err)
		}
	}
	return r.writeSums()
}

// buildPlatform writes the archive of a platform and its SBOM.
func (r release) buildPlatform(p platform) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	name := fmt.Sprintf("%s_%s_%s_%s", project, strings.TrimPrefix(r.version, "v"), p.os, p.arch)
	var files []file
	linked := make(modules)
	for _, program := range r.programs {
		path := filepath.Join(work, program)
		if err := r.compile(p, program, path); err != nil {
			return err
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		linked.add(info)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, file{program, 0o755, content})
	}
	for _, document := range documents {
		more, err := readTree(r.root, document)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	licences, err := r.licences(linked)
	if err != nil {
		return err
	}
	archive, err := pack(name, r.time, append(files, licences...))
	if err != nil {
		return err
	}
	bom, err := r.sbom(name, linked)
	if err != nil {
		return err
	}
	if err := r.write(name+".cdx.json", bom); err != nil {
		return err
	}
	return r.write(name+".tar.gz", archive)
}

// compile builds a program without cgo. The version comes from the linker flags instead of .git, and -trimpath removes the
// folder of the sources from the binary.
func (r release) compile(p platform, program, out string) error {
	variables := project + "/internal/buildinfo"
	cmd := r.goCommand("build", "-trimpath", "-buildvcs=false", "-o", out, "-ldflags",
		fmt.Sprintf("-s -w -X %s.version=%s -X %s.revision=%s", variables, r.version, variables, r.revision), "./"+program)
	// The variables of the user's environment that change the code are set to Go's defaults.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./%s: %w: %s", program, err, output)
	}
	return nil
}

func (r release) goCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	if command := os.Getenv("GO"); command != "" {
		cmd = exec.Command(command, args...)
	}
	cmd.Dir = r.root
	return cmd
}

func (r release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.out, name), content, 0o644)
}

// writeSums writes SHA256SUMS in the format of sha256sum.
func (r release) writeSums() error {
	entries, err := os.ReadDir(r.out) // sorted by name
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(r.out, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), entry.Name())
	}
	return r.write("SHA256SUMS", []byte(sums.String()))
}
