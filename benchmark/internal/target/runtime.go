package target

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of processes that can be killed; readers have the names that Readers returns.
const Redis = "redis"

// InDocker is the name of the runtime that is Docker Compose.
const InDocker = "docker"

// Reader is a reader behind the gateway.
type Reader struct {
	Name string
	Addr string // host:port at which it can be asked past the gateway
}

// RedisServer is where Redis listens, and as whom one may ask it.
type RedisServer struct{ Addr, Username, Password string }

// Runtime is what the stack runs in.
type Runtime interface {
	// Name says what it is: "local" or InDocker.
	Name() string
	// Readers returns the readers that are behind the gateway, or are about to be.
	Readers(ctx context.Context) ([]Reader, error)
	// Redis returns how Redis is reached; an error when it cannot be, from here.
	Redis(ctx context.Context) (RedisServer, error)
	// Scale brings the number of readers behind the gateway to n and blocks until that is done.
	Scale(ctx context.Context, n int) error
	// Kill ends a process like kill -9 does. revive starts it again, or waits until somebody else
	// has done so, and may be called more than once.
	Kill(ctx context.Context, process string) (revive func(context.Context) error, err error)
}

// ErrNotRunning says that there is nothing to measure.
var ErrNotRunning = errors.New("the stack is not running: start it with `make start`, then run the benchmark again")

// Detect finds out in which way the stack runs, as the Makefile does: root is its folder. The addresses that it
// returns are those of the environment, corrected by what the runtime knows.
func Detect(ctx context.Context, root string, a Addresses) (Runtime, Addresses, error) {
	cmd := exec.CommandContext(ctx, "sh", filepath.Join("local", "runtime.sh"))
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
		return &local{addresses: a}, a, nil
	case "docker":
		d := newDocker(ctx, root)
		a, err := d.locate(ctx, a)
		return d, a, err
	default:
		return nil, a, fmt.Errorf("local/runtime.sh says %q, neither local nor docker", strings.TrimSpace(string(out)))
	}
}
