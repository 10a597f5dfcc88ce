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

// Redis is the name of Redis for Kill. Readers have the names that Readers returns.
const Redis = "redis"

// InDocker is the name of the runtime Docker Compose.
const InDocker = "docker"

// Reader is a reader behind the gateway.
type Reader struct {
	Name string
	Addr string // host:port of the reader itself
}

// RedisServer is the address (host:port) of a Redis server and the credentials for it.
type RedisServer struct{ Addr, Username, Password string }

// Runtime controls a stack in one of the environments that it can run in.
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
	// Processes returns the pids of processes whose descendants include every process of the stack, or
	// none when they are unknown.
	Processes(ctx context.Context) ([]int, error)
	// Failover makes another Redis server the primary, as make failover does, and blocks until that is done.
	Failover(ctx context.Context) error
}

// ErrNoFailover reports that no other server takes over when Redis fails.
var ErrNoFailover = errors.New("this Redis has no other server that can take over (make start REDIS=sentinel starts one that has)")

// ErrNotRunning reports that the stack is not running.
var ErrNotRunning = errors.New("the stack is not running: start it with `make start`, then run the benchmark again")

// Detect returns the runtime of the stack, which it chooses as the Makefile does, and the addresses, completed
// with those that only the runtime knows. root is the folder of the Makefile.
func Detect(ctx context.Context, root string, a Addresses) (Runtime, Addresses, error) {
	cmd := exec.CommandContext(ctx, "sh", filepath.Join("local", "stack.sh"), "runtime")
	cmd.Dir = root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, a, errors.New(strings.TrimPrefix(strings.TrimSpace(string(exit.Stderr)), "error: "))
	} else if err != nil {
		return nil, a, fmt.Errorf("detect the runtime of the stack: %w", err)
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

// stackScript runs a command of local/stack.sh, as the Makefile does.
func stackScript(ctx context.Context, root string, args ...string) error {
	_, err := run(ctx, root, append([]string{"sh", "local/stack.sh"}, args...)...)
	return err
}
