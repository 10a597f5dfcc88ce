package buildinfo

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	stamped := func(version, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{
			GoVersion: "go1.26.0", Main: debug.Module{Version: version},
			Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123abc"}, {Key: "vcs.modified", Value: modified}},
		}
	}
	for _, tt := range []struct {
		name              string
		build             *debug.BuildInfo
		version, revision string // set by the linker
		want              string
	}{
		{"tag", stamped("v1.2.3", "false"), "", "", "v1.2.3 (revision 0123abc, go1.26.0)"},
		{"changed files", stamped("v1.2.3+dirty", "true"), "", "", "v1.2.3+dirty (revision 0123abc-dirty, go1.26.0)"},
		{"no version control", &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "(devel)"}}, "", "", "devel (revision unknown, go1.26.0)"},
		{"set by the linker", stamped("v1.2.3", "true"), "v2.0.0", "fedc", "v2.0.0 (revision fedc, go1.26.0)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(tt.build, tt.version, tt.revision).String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestDockerfileSetsTheVersion builds a program with the linker flags of the Dockerfile: -X silently
// ignores a variable that does not exist.
func TestDockerfileSetsTheVersion(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`-ldflags="([^"]*)"`).FindSubmatch(dockerfile)
	if flags == nil {
		t.Fatal("the Dockerfile has no -ldflags")
	}
	values := strings.NewReplacer("$VERSION", "v9.8.7", "$REVISION", "0123abc")
	program := filepath.Join(t.TempDir(), "writer")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags="+values.Replace(string(flags[1])), "-o", program, "../../writer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program, "-version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "writer v9.8.7 (revision 0123abc, go") {
		t.Errorf("%v: %s", err, out)
	}
}
