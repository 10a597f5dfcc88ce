package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
)

// Names of the runtimes, as RUNTIME has them.
const (
	inProcesses = "local"
	inDocker    = "docker"
)

// runtime is where the stack runs. Its methods block until their work is done, and print results for the user.
type runtime interface {
	start() error
	stop() error
	scale(readers int) error
	failover() error
	// logs follows the logs of a service (writer, reader or redis), or of all for "".
	logs(service string) error
	build() error
	// clean stops the stack and deletes its data.
	clean() error
	// address returns where the writer or the gateway, as role says, takes requests on this machine.
	address(role string) (string, error)
	// stage returns the running stack as one that load and faults can be put on, for the caller to close.
	stage() (stage, error)
	// state checks every process or container. It fails when the stack does not run.
	state() (state.Stack, error)
}

// choice is a runtime and the reason for it, in a few words.
type choice struct {
	name, reason string
	compose      *compose // set only for the runtime in Docker
}

func runDir() string { return cmp.Or(os.Getenv("RUN_DIR"), ".run") }

// runtimeFile is the file in the run folder with the runtime that was started last.
const runtimeFile = "runtime"

// choose picks the runtime: RUNTIME, else the one in which the stack runs (if it runs in both, the one that was started
// last), else Docker if it works.
func choose(ctx context.Context) (choice, error) {
	forced := os.Getenv("RUNTIME")
	switch forced {
	case "", inDocker:
	case inProcesses:
		return choice{name: inProcesses, reason: "RUNTIME=local"}, nil
	default:
		return choice{}, usage("RUNTIME=%s: use local or docker", forced)
	}
	c := newCompose()
	missing := c.missing(ctx)
	if forced == inDocker {
		if missing != "" {
			return choice{}, usage("RUNTIME=docker, but %s; RUNTIME=local works without Docker", missing)
		}
		return choice{inDocker, "RUNTIME=docker", c}, nil
	}
	runsInDocker := missing == "" && c.runs(ctx)
	last, _ := os.ReadFile(filepath.Join(runDir(), runtimeFile)) // none before the first start
	if strings.TrimSpace(string(last)) == inDocker && runsInDocker {
		return choice{inDocker, "the stack runs in Docker", c}, nil
	}
	if pid, _, err := rundir.Running(runDir()); pid != 0 || err != nil {
		return choice{name: inProcesses, reason: "the stack runs without Docker"}, nil
	}
	switch {
	case runsInDocker:
		return choice{inDocker, "the stack runs in Docker", c}, nil
	case missing != "":
		return choice{name: inProcesses, reason: missing}, nil
	}
	return choice{inDocker, "Docker Compose works", c}, nil
}

// runtime returns the chosen runtime.
func (p *program) runtime(c choice) (runtime, error) {
	if c.name == inDocker {
		if redis := os.Getenv("REDIS"); redis != "" && redis != layout.Single && redis != layout.WithSentinel {
			return nil, usage("REDIS=%s: use single or sentinel in Docker", redis)
		}
		return &docker{program: p, compose: c.compose}, nil
	}
	cfg, err := layout.ParseConfig(nil, os.Getenv)
	if err != nil && p.lenient {
		fmt.Fprintln(p.err, "warning:", err)
		cfg, err = layout.ParseConfig(nil, onlyRunDir)
	}
	if err != nil {
		return nil, usageError{err}
	}
	cfg.Out = p.out
	return &processes{program: p, cfg: cfg}, nil
}

// onlyRunDir returns the setting that a lenient command needs to find the stack.
func onlyRunDir(name string) string {
	if name == "RUN_DIR" {
		return os.Getenv(name)
	}
	return ""
}

// start starts the stack in the chosen runtime. If the images cannot be pulled or built, it starts the stack without
// Docker, unless RUNTIME demands Docker.
func (p *program) start(c choice) error {
	hint := "; RUNTIME=local or docker forces it"
	if os.Getenv("RUNTIME") != "" {
		hint = ""
	}
	fmt.Fprintf(p.out, "Runtime: %s (%s%s)\n", c.name, c.reason, hint)
	r, err := p.runtime(c)
	if err != nil {
		return err
	}
	if d, ok := r.(*docker); ok {
		if output, err := d.images(); p.ctx.Err() != nil {
			return errors.New("interrupted while the images were pulled and built")
		} else if err != nil {
			if os.Getenv("RUNTIME") == inDocker {
				fmt.Fprint(p.err, output)
				return errors.New("RUNTIME=docker, but the images cannot be pulled or built, for the reason above; RUNTIME=local works without Docker")
			}
			fmt.Fprintf(p.out, "The images cannot be pulled or built: %s\nStarting the local stack instead; RUNTIME=docker makes this an error.\n", lastLine(output))
			c = choice{name: inProcesses}
			if r, err = p.runtime(c); err != nil {
				return err
			}
		}
	}
	if err := rundir.Make(runDir()); err != nil {
		return err
	}
	if err := rundir.WriteFile(filepath.Join(runDir(), runtimeFile), c.name+"\n"); err != nil {
		return fmt.Errorf("remember the runtime: %w", err)
	}
	return r.start()
}
