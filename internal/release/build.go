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

const (
	project = "heavy-read-api"
	licence = "LICENSE" // file of our own licence
)

// platform is a GOOS and a GOARCH.
type platform struct{ os, arch string }

var (
	platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}}
	programs  = []string{"auditor", "failover", "local", "reader", "writer"}
	// documents are patterns of the files and folders that are part of every archive: the pages and what they link to.
	documents = []string{
		".env.example", "CHANGELOG.md", "CONTRIBUTING.md", licence, "README.md", "SECURITY.md", "benchmark/benchmark-report*", "docs", "examples",
		"internal/openapi/openapi.yaml",
	}
)

// release is a release of one commit.
type release struct {
	root     string    // folder with the files of the commit
	out      string    // folder for the results
	version  string    // such as v1.2.3
	revision string    // commit
	time     time.Time // time of the commit, which every file in an archive gets
	programs []string  // folders of the programs in the archives
	images   []image
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
	if err := r.start(notes); err != nil {
		return fmt.Errorf("%w: make the folder %s writable, or remove it", err, r.out)
	}
	for _, p := range platforms {
		if err := r.buildPlatform(p); err != nil {
			return fmt.Errorf("build for %s/%s: %w", p.os, p.arch, err)
		}
	}
	return r.writeSums()
}

// start replaces the folder of the results by one that has only the notes.
func (r release) start(notes string) error {
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	return r.write("NOTES.md", []byte(notes))
}

// buildPlatform writes the archive of a platform, and on Linux the images, each with its SBOM.
func (r release) buildPlatform(p platform) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	built := builds{release: r, platform: p, folder: work, done: map[string]program{}}
	number := strings.TrimPrefix(r.version, "v")
	name := fmt.Sprintf("%s_%s_%s_%s", project, number, p.os, p.arch)
	files, linked, err := built.programs(r.programs)
	if err != nil {
		return err
	}
	for _, document := range documents {
		more, err := readTree(r.root, document)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	archive, err := pack(name, r.time, files)
	if err != nil {
		return err
	}
	if err := r.writeWithSBOM(name, ".tar.gz", archive, r.programs, linked); err != nil {
		return err
	}
	if p.os != "linux" {
		return nil
	}
	for _, i := range r.images {
		files, linked, err := built.programs(i.programs)
		if err != nil {
			return err
		}
		ours, err := readTree(r.root, licence)
		if err != nil {
			return err
		}
		archive, err := r.imageArchive(i, p, append(files, ours...))
		if err != nil {
			return fmt.Errorf("image of the %s: %w", i.name, err)
		}
		if err := r.writeWithSBOM(fmt.Sprintf("%s-%s-image_%s_%s_%s", project, i.name, number, p.os, p.arch), ".tar", archive, i.programs, linked); err != nil {
			return err
		}
	}
	return nil
}

func (r release) writeWithSBOM(name, extension string, archive []byte, programs []string, linked modules) error {
	bom, err := r.sbom(name, programs, linked)
	if err != nil {
		return err
	}
	if err := r.write(name+".cdx.json", bom); err != nil {
		return err
	}
	return r.write(name+extension, archive)
}

// builds are the programs of a platform, each built once.
type builds struct {
	release
	platform platform
	folder   string
	done     map[string]program
}

// program is a program and what it links.
type program struct {
	content []byte
	info    *buildinfo.BuildInfo
}

// programs returns programs, the licences of what they link, and the modules that they link.
func (b *builds) programs(names []string) (files []file, linked modules, err error) {
	linked = make(modules)
	for _, name := range names {
		built, ok := b.done[name]
		if !ok {
			path := filepath.Join(b.folder, name)
			if err := b.compile(b.platform, name, path); err != nil {
				return nil, nil, err
			}
			if built.info, err = buildinfo.ReadFile(path); err != nil {
				return nil, nil, err
			}
			if built.content, err = os.ReadFile(path); err != nil {
				return nil, nil, err
			}
			b.done[name] = built
		}
		linked.add(built.info)
		files = append(files, file{name: name, mode: 0o755, content: built.content})
	}
	licences, err := b.licences(linked)
	return append(files, licences...), linked, err
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
