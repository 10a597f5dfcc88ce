// Package gobuild builds programs from their Go modules.
package gobuild

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Program is a command of a module.
type Program struct {
	Package string // import path of the command
	Version string // version of its module
	Ldflags string
}

// Build compiles p without cgo into the file out. It does so in a temporary module, because go install refuses
// modules whose go.mod has replace directives.
func Build(ctx context.Context, p Program, out string) error {
	dir, err := os.MkdirTemp("", "gobuild-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, args := range [][]string{
		{"mod", "init", "throwaway"},
		{"get", p.Package + "@" + p.Version},
		{"build", "-ldflags=-s -w " + p.Ldflags, "-o", out, p.Package},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := cmd.CombinedOutput(); err != nil {
			lines := strings.Split(strings.TrimSpace(string(output)), "\n")
			return fmt.Errorf("build %s: go %s: %w: %s", p.Package, args[0], err, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	}
	return nil
}
