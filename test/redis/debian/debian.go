// Package debian unpacks the Redis or Valkey server of another Debian suite into a folder of its own. Nothing is
// installed, and root is not needed: the programs run with the loader and the libraries of their suite.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// aptTimeout bounds one call of apt-get that uses the network.
const aptTimeout = 2 * time.Minute

// Server is an unpacked server.
type Server struct {
	Root   string // root file system that holds the packages
	Bin    string // directory for PATH: wrappers named redis-server and redis-cli
	Loader string // dynamic loader of the suite, relative to Root
	Name   string // product and version, such as "Redis 8.0.6"
}

// Fetch unpacks product (redis or valkey) of suite into the user's cache directory and reuses what it finds there;
// delete that folder to get a newer version.
func Fetch(ctx context.Context, suite, product string) (Server, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Server{}, err
	}
	target := filepath.Join(cache, "heavy-read-api", "redis", product+"-"+suite)
	if _, err := os.Stat(filepath.Join(target, "bin", "redis-server")); errors.Is(err, fs.ErrNotExist) {
		if err := unpack(ctx, suite, product, target); err != nil {
			return Server{}, fmt.Errorf("unpack %s of Debian %s: %w", product, suite, err)
		}
	}
	s, err := open(ctx, target)
	if err != nil {
		os.RemoveAll(target) // so that the next call does not reuse a broken one
		return Server{}, err
	}
	return s, nil
}

var versionLine = regexp.MustCompile(`^(Redis|Valkey) server v=(\S+)`)

// open describes the server in dir and proves that it runs on this machine.
func open(ctx context.Context, dir string) (Server, error) {
	s := Server{Root: filepath.Join(dir, "root"), Bin: filepath.Join(dir, "bin")}
	var err error
	if s.Loader, err = findLoader(s.Root); err != nil {
		return Server{}, err
	}
	version, err := output(exec.CommandContext(ctx, filepath.Join(s.Bin, "redis-server"), "--version"))
	if err != nil {
		return Server{}, err
	}
	match := versionLine.FindStringSubmatch(version)
	if match == nil {
		return Server{}, fmt.Errorf("redis-server --version printed %q", version)
	}
	s.Name = match[1] + " " + match[2]
	return s, nil
}

func unpack(ctx context.Context, suite, product, target string) error {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: this needs Debian or a distribution based on it", tool)
		}
	}
	work, err := os.MkdirTemp("", "debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	a, err := newApt(ctx, work, suite)
	if err != nil {
		return err
	}
	files, err := a.download(ctx, product+"-server", product+"-tools")
	if err != nil {
		return err
	}
	// On the file system of the target, so that the last step is a rename and no half of a server can be reused.
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(target), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	root := filepath.Join(fresh, "root")
	for _, file := range files {
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", file, root)); err != nil {
			return err
		}
	}
	if err := writeWrappers(fresh, target, product); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Rename(fresh, target)
}

// writeWrappers writes dir/bin/redis-server and redis-cli, which run the programs of dir/root once dir is at target.
func writeWrappers(dir, target, product string) error {
	loader, err := findLoader(filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	for _, program := range []string{"server", "cli"} {
		binary := filepath.Join("usr/bin", product+"-"+program)
		if _, err := os.Stat(filepath.Join(dir, "root", binary)); err != nil {
			return err
		}
		script := Wrapper(filepath.Join(target, "root"), loader, binary)
		if err := os.WriteFile(filepath.Join(dir, "bin", "redis-"+program), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Wrapper returns a shell script that runs the program below root with the loader and libraries found there. loader
// and program are relative to root.
func Wrapper(root, loader, program string) string {
	return fmt.Sprintf("#!/bin/sh\nexec '%s' --library-path '%s' '%s' \"$@\"\n",
		filepath.Join(root, loader), filepath.Join(root, filepath.Dir(loader)), filepath.Join(root, program))
}

// findLoader returns the path of the dynamic loader, relative to root.
func findLoader(root string) (string, error) {
	var loader string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, _ := filepath.Match("ld-linux*.so.*", entry.Name()); ok && entry.Type().IsRegular() {
			loader = path
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if loader == "" {
		return "", fmt.Errorf("%s has no dynamic loader", root)
	}
	return filepath.Rel(root, loader)
}

// apt calls apt-get with separate package lists and leaves those of the machine unchanged.
type apt struct {
	work    string
	options []string
}

func newApt(ctx context.Context, work, suite string) (*apt, error) {
	targets, err := output(exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)", "Identifier: Packages"))
	if err != nil {
		return nil, err
	}
	mirror := mainMirror(targets)
	if mirror == "" {
		return nil, errors.New("apt has no mirror configured")
	}
	for _, dir := range []string{"lists/partial", "cache/archives/partial", "packages"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return nil, err
		}
	}
	source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, suite)
	for name, content := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	a := &apt{work: work, options: []string{"-qq"}}
	for _, option := range []string{
		"Dir::Etc::sourcelist=" + work + "/sources.list", "Dir::Etc::sourceparts=-",
		"Dir::State::lists=" + work + "/lists", "Dir::State::status=" + work + "/status", "Dir::Cache=" + work + "/cache",
		"APT::Sandbox::User=root", "Acquire::Languages=none", "APT::Update::Error-Mode=any", "Acquire::Retries=1",
		"Acquire::http::Timeout=20",
	} {
		a.options = append(a.options, "-o", option)
	}
	_, err = a.run(ctx, "apt-get", "update")
	return a, err
}

// mainMirror returns the address of the first mirror of Debian's main component in the output of apt-get indextargets.
func mainMirror(targets string) string {
	for line := range strings.Lines(targets) {
		component, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		if component == "main" && !strings.Contains(address, "security") {
			return address
		}
	}
	return ""
}

func (a *apt) run(ctx context.Context, program, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, aptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, slices.Concat(a.options, []string{command}, args)...)
	cmd.Dir = filepath.Join(a.work, "packages") // where apt-get download puts its files
	return output(cmd)
}

var libraryLine = regexp.MustCompile(`(?m)^ +Depends: ((?:lib|zlib)\S*)$`)

// download returns the files of the packages and of the libraries that they need, directly or not.
func (a *apt) download(ctx context.Context, packages ...string) ([]string, error) {
	for {
		depends, err := a.run(ctx, "apt-cache", "depends", append([]string{"--important"}, packages...)...)
		if err != nil {
			return nil, err
		}
		all := slices.Clone(packages)
		for _, match := range libraryLine.FindAllStringSubmatch(depends, -1) {
			all = append(all, match[1])
		}
		slices.Sort(all)
		all = slices.Compact(all)
		if len(all) == len(packages) {
			break
		}
		packages = all
	}
	if _, err := a.run(ctx, "apt-get", "download", packages...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(a.work, "packages", "*.deb"))
}

// output returns the standard output of a command. The error holds the last line of what it printed.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stdout.String()+stderr.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, lines[len(lines)-1])
	}
	return stdout.String(), nil
}
