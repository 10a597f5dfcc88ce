package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/failover"
)

// Bounds of the commands.
const (
	startWait = 60 * time.Second
	stopWait  = 20 * time.Second
	exitWait  = 2 * time.Second // for the supervisor's process to end after it has given the run folder back
	scaleWait = 40 * time.Second
)

// Role runs one process of the stack until it is told to stop, and returns its exit code.
type Role func(args []string) int

const help = `usage: local [command] [-setting=value ...]
  run       start the stack and stay in the foreground (the default); Ctrl-C stops it
  start     start it in the background and wait until everything is ready
  stop      stop it; Redis's data stays
  status    a line per process: ready, or why not
  scale N   N readers in rotation
  failover  move the primary to another Redis server without losing a write
  stats     a line per reader: what it holds, how far behind it is, reads per second
  clean     stop, then delete the run folder with Redis's data
local run -help lists the settings.
`

// Main runs the command that args name, or one of roles: the stack starts this same program again
// for each of its processes. The embedded Redis is a role that is always there. It returns the
// exit code.
func Main(args []string, getenv func(string) string, stdout, stderr io.Writer, roles map[string]Role) int {
	// Posts and logs in the run folder are readable by this user alone, also those that Redis writes.
	syscall.Umask(0o077)
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	if role, ok := roles[name]; ok {
		return role(args)
	}
	switch name {
	case roleRedis:
		return daemon.Main(args, getenv, stderr, parseEmbedded, runEmbedded)
	case "run":
		return runStack(args, getenv, stdout, stderr)
	case "help":
		fmt.Fprint(stdout, help)
		return 0
	}
	commands := map[string]func(c *command) error{
		"start": (*command).start, "stop": (*command).stop, "status": (*command).status,
		"scale": (*command).scale, "stats": (*command).stats, "failover": (*command).failover, "clean": (*command).clean,
	}
	do, ok := commands[name]
	if !ok {
		fmt.Fprintf(stderr, "error: there is no command %q: use run, %s\n", name,
			strings.Join(slices.Sorted(maps.Keys(commands)), ", "))
		return 2
	}
	c := &command{out: stdout, startWait: startWait}
	if name == "scale" && len(args) > 0 {
		c.arg, args = args[0], args[1:]
	}
	return c.main(do, args, getenv, stderr)
}

// runStack runs the supervisor until it is told to stop, and returns its exit code.
func runStack(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	// Without a handler the first line for a pipe whose reader is gone would end the supervisor
	// without a drain. The stack goes on, and the log files keep the output.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	out, errs := newTerminal(stdout), newTerminal(stderr)
	defer out.close()
	defer errs.close()
	var failure error
	code := daemon.Main(args, getenv, errs, ParseConfig, func(ctx context.Context, c Config) error {
		c.Out, c.Err = out, errs
		failure = Run(ctx, c)
		return nil // reported below as plain text
	})
	if failure != nil {
		fmt.Fprintln(errs, "error:", failure)
		return 1
	}
	return code
}

// command is one run of a command that talks to the stack in the background.
type command struct {
	ctx  context.Context
	cfg  Config
	args []string // the settings, to be passed on
	arg  string   // scale's number
	out  io.Writer

	startWait time.Duration // bound of start
}

func (c *command) main(do func(*command) error, args []string, getenv func(string) string, stderr io.Writer) int {
	cfg, err := ParseConfig(args, getenv)
	var asked *daemon.HelpError
	if errors.As(err, &asked) {
		fmt.Fprint(c.out, asked.Text)
		return 0
	} else if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return daemon.ExitConfig
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.ctx, c.cfg, c.args = ctx, cfg, args
	if err := do(c); err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return 1
	}
	return 0
}

// stop ends the stack and waits until it is gone.
func (c *command) stop() error {
	pid, _, err := running(c.cfg)
	if err != nil {
		return err
	}
	if pid == 0 {
		// What a supervisor that was killed left behind is no use to anybody.
		os.Remove(c.cfg.file(pidFile))
		os.Remove(c.cfg.file(addressFile))
		fmt.Fprintln(c.out, "The stack is not running.")
		return nil
	}
	begun := time.Now()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the supervisor (pid %d): %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(c.ctx, stopWait)
	defer cancel()
	if !await(ctx, func() bool { now, _, err := running(c.cfg); return err == nil && now != pid }) {
		return fmt.Errorf("the supervisor (pid %d) has not stopped after %s, see %s", pid, time.Since(begun).Round(time.Second), c.cfg.file("stack.log"))
	}
	// Everything has ended but the process itself, which writes its last lines. Where nobody reaps
	// orphans it stays as a zombie, so this is no reason to fail.
	ctx, cancel = context.WithTimeout(c.ctx, exitWait)
	defer cancel()
	await(ctx, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	fmt.Fprintf(c.out, "Stopped in %.1f s.\n", time.Since(begun).Seconds())
	var kept []string
	for _, dir := range redisDirs {
		if _, err := os.Stat(c.cfg.file(dir)); err == nil {
			kept = append(kept, c.cfg.file(dir))
		}
	}
	if len(kept) > 0 {
		slices.Sort(kept)
		fmt.Fprintf(c.out, "Redis's data is kept in %s.\n", strings.Join(kept, ", "))
	}
	return nil
}

// clean stops the stack and forgets everything about it.
func (c *command) clean() error {
	if err := c.stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.cfg.RunDir); err != nil {
		return fmt.Errorf("delete the run folder: %w", err)
	}
	fmt.Fprintf(c.out, "Deleted %s.\n", c.cfg.RunDir)
	return nil
}

var errNotRunning = errors.New("the stack is not running: `local start` (make start) starts it")

// control returns the address of the running stack's control interface.
func (c *command) control() (string, error) {
	pid, control, err := running(c.cfg)
	if err == nil && pid == 0 {
		err = errNotRunning
	}
	return control, err
}

// state returns the state of the running stack.
func (c *command) state() (State, error) {
	control, err := c.control()
	if err != nil {
		return State{}, err
	}
	st, err := getState(c.ctx, control)
	if err != nil {
		return State{}, fmt.Errorf("ask the supervisor: %w", err)
	}
	return st, nil
}

func (c *command) status() error {
	st, err := c.state()
	if err != nil {
		return err
	}
	printState(c.out, st)
	if !st.ready() {
		return errors.New("not everything is ready")
	}
	return nil
}

func (c *command) scale() error {
	n, err := strconv.Atoi(c.arg)
	if err != nil {
		return fmt.Errorf("scale %q: say how many readers, such as `local scale 5` (make scale N=5)", c.arg)
	}
	control, err := c.control()
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]int{"readers": n})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, scaleWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+control+"/api/scale", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	var st State
	if err := call(req, &st); err != nil {
		return err
	}
	printState(c.out, st)
	return nil
}

// failover fails over the stack's Redis, with the settings that the stack was started with.
func (c *command) failover() error {
	st, err := c.state()
	if err != nil {
		return err
	}
	env := c.cfg.env
	if st.Redis.Layout != "" {
		password, err := readPassword(c.cfg.file(passwordFile))
		if err != nil {
			return err
		}
		env = append(slices.Clone(env), ownRedisEnv(st.Redis.Addrs, st.Redis.MasterName, password)...)
	}
	cfg, err := failover.ParseConfig(nil, func(name string) string { return getenv(env, name) })
	if err != nil {
		return err
	}
	logging.Disable() // the client repeats what the report says
	cfg.Out = c.out
	cfg.Name = func(addr string) string {
		for _, p := range st.Processes {
			if p.Address == addr {
				return p.Name
			}
		}
		return addr
	}
	err = failover.Run(c.ctx, cfg)
	if errors.Is(err, failover.ErrSingle) && st.Redis.Layout != "" {
		err = fmt.Errorf("%w; REDIS=%s or REDIS=%s start several", err, redisSentinel, redisCluster)
	}
	return err
}

// getenv returns the value of a variable in an environment, "" when it is not set.
func getenv(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}
