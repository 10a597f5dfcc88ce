// Package buildinfo identifies the build of the running program.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Set by the linker (-X) in builds without a .git folder, such as those of the images.
var version, revision string

// Info identifies a build.
type Info struct {
	Version   string // tag or pseudo-version; "devel" without version control
	Revision  string // commit, with "-dirty" appended if files were changed; "unknown" without version control
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

// read prefers the values that the linker has set to the VCS stamp of go build.
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

// String returns the text that -version prints after the name of the program.
func (i Info) String() string {
	return fmt.Sprintf("%s (revision %s, %s)", i.Version, i.Revision, i.GoVersion)
}
