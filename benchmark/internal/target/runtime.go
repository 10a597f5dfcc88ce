package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Names of processes that can be killed; readers have the names that Readers returns.
const Redis = "redis"

// InDocker is the name of the runtime that is Docker Compose.
const InDocker = "docker"

// Reader is a reader behind the gateway.
type Reader struct {
	Name string
	Addr string // host:port of the reader itself
}

// RedisServer is the address of Redis and the user to log in as.
type RedisServer struct{ Addr, Username, Password string }

// Runtime operates a stack in one of the environments that it can run in.
type Runtime interface {
	// Name returns "local" or InDocker.
	Name() string
	// Readers returns the readers that are behind the gateway or are being added to it.
	Readers(ctx context.Context) ([]Reader, error)
	// Redis returns the address of Redis, or an error when Redis cannot be reached from this machine.
	Redis(ctx context.Context) (RedisServer, error)
	// Scale sets the number of readers behind the gateway to n and blocks until that is done.
	Scale(ctx context.Context, n int) error
	// Kill ends a process with SIGKILL. revive starts it again, or waits until a supervisor has done so,
	// and may be called more than once.
	Kill(ctx context.Context, process string) (revive func(context.Context) error, err error)
	// Primary returns the name of the primary. It returns an error while a server or a Sentinel is not
	// ready for a failover, and ErrNoFailover when no other server can take over.
	Primary(ctx context.Context) (string, error)
	// Processes returns pids whose descendants are all processes of the stack; none when they are not
	// known.
	Processes(ctx context.Context) ([]int, error)
	// Failover makes another Redis server the primary, as make failover does, and blocks until that is done.
	Failover(ctx context.Context) error
}

// ErrNoFailover reports that no other server takes over when Redis fails.
var ErrNoFailover = errors.New("no other server takes over from this Redis (make start REDIS=sentinel starts one that fails over)")

// ErrNotRunning reports that the stack is not running.
var ErrNotRunning = errors.New("the stack is not running: start it with `make start`, then run the benchmark again")

// Detect returns the runtime of the stack, chosen as the Makefile chooses it; root is the Makefile's folder. The
// addresses are those of the environment, except for those that only the runtime knows.
func Detect(ctx context.Context, root string, a Addresses) (Runtime, Addresses, error) {
	cmd := exec.CommandContext(ctx, "sh", filepath.Join("local", "stack.sh"), "runtime")
	cmd.Dir = root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, a, errors.New(strings.TrimPrefix(strings.TrimSpace(string(exit.Stderr)), "error: "))
	} else if err != nil {
		return nil, a, fmt.Errorf("find out how the stack runs: %w", err)
	}
	switch kind, _, _ := strings.Cut(string(out), " "); kind {
	case "local":
		return &local{root: root, addresses: a}, a, nil
	case "docker":
		d := &docker{root: root}
		a, err := d.locate(ctx, a)
		return d, a, err
	default:
		return nil, a, fmt.Errorf("local/stack.sh runtime prints %q, neither local nor docker", strings.TrimSpace(string(out)))
	}
}

// run runs a command in a folder and returns its output.
func run(ctx context.Context, folder string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = folder
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// stackScript runs a command of the Makefile.
func stackScript(ctx context.Context, root string, args ...string) error {
	_, err := run(ctx, root, append([]string{"sh", "local/stack.sh"}, args...)...)
	return err
}
