// Package local is the command line behind make: it starts, stops and observes the stack, as processes of this
// machine or in Docker.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/dotenv"
	"heavy-read-api/internal/stack"
	"heavy-read-api/internal/stack/embedded"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
)

// Role runs one process of the stack until it receives a signal to stop, and returns its exit code.
type Role func(args []string) int

const help = `usage: local command

These commands control the stack in Docker or as local processes. RUNTIME (docker or local) selects one; the default
is the runtime in which the stack runs, else Docker if it works:
  start            start the stack and wait until everything is ready
  stop             stop it; the posts stay
  health           print a line per process or container; fail when one is not ready
  stats            print a line per reader: reads/s, latency, propagation, memory, lag
  load             put reads and writes on the stack until Ctrl-C, and count the reads that fail
  demo             break the stack in every way under load, and print the outcomes; fail if one is bad
  scale N          put N readers into rotation
  failover         move the primary to another Redis server without losing a write
  logs [SERVICE]   follow the logs of all, or of writer, reader or redis
  test-write [ID]  write a post
  test-read ID     read a post through the gateway
  build            build what the stack runs
  clean            stop the stack and delete its data
  runtime          print "docker" or "local", and the reason
  compose ARGS...  run docker compose with the files of the stack that was started last

Without Docker only:
  run              start the stack and stay in the foreground; Ctrl-C stops it; run -help lists the settings
`

// usageError is an error in the way a command is called; its exit code is 2.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// program is one run of a command.
type program struct {
	ctx      context.Context
	out, err io.Writer

	startWait time.Duration // bound of a start without Docker
	lenient   bool          // an invalid setting is only a warning
	pause     time.Duration // time between two polls of the gateway's list in Docker, and between two measurements
}

// Main runs the command that args name, or one of roles, and returns the exit code: the stack starts this
// program again for each of its processes. The embedded Redis is a role of its own. The working directory is
// the root of the repository.
func Main(args []string, stdout, stderr io.Writer, roles map[string]Role) int {
	p := &program{out: stdout, err: stderr, startWait: stack.StartWait, pause: 2 * time.Second}
	return p.main(args, roles)
}

func (p *program) main(args []string, roles map[string]Role) int {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if name != "build" {
		syscall.Umask(0o077) // only this user can read posts and logs, also those that Redis writes
	}
	if role, ok := roles[name]; ok {
		return role(args)
	}
	switch name {
	case state.Redis:
		return daemon.Main(args, os.Getenv, p.err, embedded.ParseConfig, embedded.Run)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(p.out, help)
		return 0
	}
	p.lenient = lenient[name]
	if err := dotenv.Load(".env"); err != nil {
		if !p.lenient {
			fmt.Fprintln(p.err, "error:", err)
			return 2
		}
		fmt.Fprintln(p.err, "warning:", err)
	}
	if name == "run" {
		return p.supervise(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p.ctx = ctx
	err := p.command(name, args)
	var wrongUsage usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &wrongUsage):
		fmt.Fprintln(p.err, "error:", err)
		return 2
	}
	fmt.Fprintln(p.err, "error:", err)
	return 1
}

// exitError is the exit code of a program that has printed its own error.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// takesArgument are the commands with an argument, which may be missing or empty.
var takesArgument = map[string]bool{"scale": true, "logs": true, "test-write": true, "test-read": true}

// lenient are the commands that work with a running stack in spite of an invalid setting, which may have been edited
// since its start.
var lenient = map[string]bool{"stop": true, "health": true, "stats": true, "logs": true, "clean": true}

// command runs a command other than run.
func (p *program) command(name string, args []string) error {
	if name == "compose" {
		return newCompose().exec(args...)
	}
	arg := ""
	switch {
	case len(args) > 1, len(args) == 1 && !takesArgument[name]:
		return usage("%s: unexpected argument %q", name, args[len(args)-1])
	case len(args) == 1:
		arg = args[0]
	}
	switch name {
	case "test-write":
		return p.testWrite(arg)
	case "test-read":
		return p.testRead(arg)
	}
	c, err := choose(p.ctx)
	if err != nil {
		return err
	}
	if name == "runtime" {
		fmt.Fprintln(p.out, c.name, c.reason)
		return nil
	}
	if name == "start" {
		return p.start(c)
	}
	r, err := p.runtime(c)
	if err != nil {
		return err
	}
	switch name {
	case "load":
		return p.load(r)
	case "demo":
		return p.demo(c, r)
	case "stop":
		return r.stop()
	case "health":
		return p.health(r)
	case "stats":
		return p.stats(r)
	case "scale":
		if arg == "" {
			return usage("N is missing: make scale N=5")
		}
		n, err := strconv.Atoi(arg)
		if err != nil {
			return usage("N=%s: between 1 and %d readers can be in rotation", arg, layout.MaxReaders)
		}
		return r.scale(n)
	case "failover":
		return r.failover()
	case "logs":
		return r.logs(arg)
	case "build":
		return r.build()
	case "clean":
		return r.clean()
	}
	return usage("there is no command %q; help lists them", name)
}

// supervise runs the supervisor until it receives a signal to stop, and returns its exit code.
func (p *program) supervise(args []string) int {
	// Without a handler, a write to a pipe whose reader has ended would end the supervisor without a drain.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	out, errs := supervisor.NewTerminal(p.out), supervisor.NewTerminal(p.err)
	defer out.Close()
	defer errs.Close()
	var failure error
	code := daemon.Main(args, os.Getenv, errs, layout.ParseConfig, func(ctx context.Context, c layout.Config) error {
		c.Out, c.Err = out, errs
		failure = stack.Run(ctx, c)
		return nil // reported below as plain text
	})
	if failure != nil {
		fmt.Fprintln(errs, "error:", failure)
		return 1
	}
	return code
}

// lastLine returns the last line of text that is not blank.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
