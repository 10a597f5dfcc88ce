// Command release builds a release into dist: an archive for each platform with the programs, their documentation and
// licences, the images of the writer and the reader for each processor, an SBOM for each of them, the notes and SHA256SUMS.
// Two builds of one commit by one version of Go have the same bytes.
//
//	go run ./internal/release -version v1.2.3
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	version := flag.String("version", "", "version such as v1.2.3; empty takes the tag of the current commit")
	out := flag.String("out", "dist", "folder for the release; its previous content is deleted")
	flag.Parse()
	if err := run(*version, *out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run builds the release of the commit that is checked out in the working directory, which is the repository's folder.
func run(version, out string) error {
	changes, err := git("status", "--porcelain")
	if err != nil {
		return err
	} else if changes != "" {
		return fmt.Errorf("a release contains only committed files: commit or remove these first:\n%s", changes)
	}
	if version == "" {
		if version, err = git("describe", "--tags", "--exact-match"); err != nil {
			return fmt.Errorf("the current commit has no tag: create one, or name the version (make release VERSION=v1.2.3): %w", err)
		}
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	r := release{root: ".", out: out, version: version, programs: programs, images: images}
	if r.revision, err = git("rev-parse", "HEAD"); err != nil {
		return err
	}
	seconds, err := git("show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("read the time of the commit: %w", err)
	}
	r.time = time.Unix(unix, 0).UTC()
	return r.build(platforms)
}

var versionPattern = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// checkVersion refuses versions that are not semantic. Versions are parts of file names and linker flags.
func checkVersion(version string) error {
	if !versionPattern.MatchString(version) {
		return fmt.Errorf("%q is not a version: use v, three numbers and an optional suffix, such as v1.2.3 or v1.2.3-rc.1", version)
	}
	return nil
}

func git(args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.Command("git", args...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(output)), nil
}
