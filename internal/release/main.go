// Command release builds a release into dist: an archive for each platform with the programs, their documentation and
// licences, the images of the writer and the reader for each processor, an SBOM for each of them, the notes and SHA256SUMS.
// Two builds of one commit by one version of Go have the same bytes.
//
//	go run ./internal/release -version v1.2.3
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	version := flag.String("version", "", "version such as v1.2.3, a tag of the current commit; empty if it has only one")
	out := flag.String("out", "dist", "folder for the release; its previous content is deleted")
	flag.Parse()
	if err := run(*version, *out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run builds the release of the commit that is checked out in the working directory, which is the repository's folder.
func run(version, out string) error {
	version, err := check(version)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := export(root); err != nil {
		return err
	}
	r := release{root: root, out: out, version: version, programs: programs, images: images}
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

// check returns the version to build. It refuses uncommitted changes, and a version that is not a tag of the current commit,
// because a build of that tag would then give other bytes.
func check(version string) (string, error) {
	changes, err := git("status", "--porcelain")
	if err != nil {
		return "", fmt.Errorf("a release is built in a clone of the repository, with git installed: %w", err)
	}
	if changes != "" {
		return "", fmt.Errorf("a release contains only committed files: commit or remove these first:\n%s", changes)
	}
	if version != "" && !versionPattern.MatchString(version) {
		return "", fmt.Errorf("%q is not a version: use v, three numbers and an optional suffix, such as v1.2.3 or v1.2.3-rc.1", version)
	}
	all, err := git("tag", "--points-at", "HEAD")
	if err != nil {
		return "", err
	}
	tags := slices.DeleteFunc(strings.Fields(all), func(tag string) bool { return !versionPattern.MatchString(tag) })
	switch {
	case slices.Contains(tags, version):
		return version, nil
	case version != "":
		if _, err := git("rev-parse", "--verify", "--quiet", "refs/tags/"+version); err == nil {
			return "", fmt.Errorf("the tag %[1]s is on another commit: check it out (git checkout %[1]s)", version)
		}
		return "", fmt.Errorf("there is no tag %[1]s: tag the current commit (git tag %[1]s), or fetch the tags of the remote (git fetch --tags)", version)
	case len(tags) == 0:
		return "", errors.New("the current commit has no tag of a version: tag it (git tag v1.2.3), or check out the one to build (git checkout v1.2.3)")
	case len(tags) > 1:
		return "", fmt.Errorf("the current commit has several tags, %s: choose one of them (make release VERSION=%s)", strings.Join(tags, ", "), tags[0])
	}
	return tags[0], nil
}

// export copies the files of the commit to a folder. Files that git ignores, such as those of editors, are not part of a
// release.
func export(folder string) error {
	_, err := git("checkout-index", "--all", "--prefix="+folder+"/")
	return err
}

// versionPattern matches semantic versions. They are parts of file names and linker flags.
var versionPattern = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func git(args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.Command("git", args...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(output)), nil
}
