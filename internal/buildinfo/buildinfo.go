// Package buildinfo identifies the build of the running program.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker (-X) where the build sees no .git: in an image.
var version, revision string

// Info identifies a build.
type Info struct {
	Version   string // tag or pseudo-version, "devel" without version control
	Revision  string // commit; "-dirty" is appended if files were changed, "unknown" without version control
	GoVersion string
}

// Read returns the build of the running program.
func Read() Info {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		build = new(debug.BuildInfo)
	}
	return read(build, version, revision)
}

// read prefers what the linker set to the stamp that go build leaves.
func read(build *debug.BuildInfo, version, revision string) Info {
	stamp := make(map[string]string)
	for _, s := range build.Settings {
		stamp[s.Key] = s.Value
	}
	commit := stamp["vcs.revision"]
	if commit != "" && stamp["vcs.modified"] == "true" {
		commit += "-dirty"
	}
	module := build.Main.Version
	if module == "(devel)" {
		module = ""
	}
	return Info{
		Version:   cmp.Or(version, module, "devel"),
		Revision:  cmp.Or(revision, commit, "unknown"),
		GoVersion: cmp.Or(build.GoVersion, runtime.Version()),
	}
}

// String is the line that -version prints after the program's name.
func (i Info) String() string {
	return fmt.Sprintf("%s (revision %s, %s)", i.Version, i.Revision, i.GoVersion)
}
