//go:build compose

package compose

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/test/compose/internal/engine"
	"heavy-read-api/test/compose/internal/progress"
	"heavy-read-api/test/compose/internal/standin"
)

const (
	// project is not the default, so that the user's own stack and its data are left alone.
	project = "heavy-read-api-test"

	standIns  = "test/compose/stand-ins.yaml"
	deadProxy = "http://127.0.0.1:1"

	testTimeout     = 30 * time.Minute
	tearDownTimeout = 90 * time.Second
)

var (
	// testContext ends on a signal, after testTimeout or with go test. Every command uses it, so the checks end early and
	// the stack is torn down.
	testContext context.Context
	ownEngine   bool // dockerd was started by the test
)

func TestMain(m *testing.M) {
	flag.Parse()
	if timeout := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); timeout != 0 {
		fmt.Fprintln(os.Stderr, "error: the timeout of go test would leave a Docker engine behind: use make test-compose, or -timeout 0")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeoutCause(ctx, testTimeout, fmt.Errorf("the test took longer than %v", testTimeout))
	go cancelWithParent(cancel)
	testContext = ctx
	code := 1
	if err := runChecks(m, &code); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		code = 1
	}
	cancel()
	stop()
	os.Exit(code)
}

// cancelWithParent calls cancel when go test has ended: on SIGTERM it ends without a signal to the test.
func cancelWithParent(cancel func()) {
	parent := os.Getppid()
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			cancel()
			return
		}
	}
}

// runChecks sets up the engine and the images, runs the checks and tears everything down.
func runChecks(m *testing.M, code *int) (err error) {
	if err := os.Chdir("../.."); err != nil { // the repository's folder
		return err
	}
	work, err := os.MkdirTemp("", "compose-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := setenv("COMPOSE_PROJECT_NAME", project, "RUNTIME", "docker", "RUN_DIR", filepath.Join(work, "run")); err != nil {
		return err
	}
	e, err := engine.Start(testContext, work)
	if err != nil {
		return err
	}
	defer func() {
		progress.Printf("stopping")
		err = errors.Join(err, e.Stop())
	}()
	ownEngine = e.Own
	if err := engine.Compose(testContext, work); err != nil {
		return err
	}
	var used []string
	if ownEngine {
		if used, err = standin.Build(testContext, work); err != nil {
			return err
		}
		// With an unreachable proxy in Docker's configuration and in the environment, a request of the stack to one of
		// its own services fails unless it goes there directly.
		if err := engine.SetProxy(work, deadProxy); err != nil {
			return err
		}
		if err := setenv("COMPOSE_FILE", "docker-compose.yaml:"+standIns); err != nil {
			return err
		}
	}
	if err := setenv("http_proxy", deadProxy, "no_proxy", "", "NO_PROXY", ""); err != nil {
		return err
	}
	defer tearDown()
	*code = m.Run()
	for _, program := range used {
		fmt.Println("stood in:", program)
	}
	if err := context.Cause(testContext); err != nil {
		return err
	}
	return summarize()
}

func setenv(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if err := os.Setenv(pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// tearDown removes the rest of the stack, also after the end of testContext.
func tearDown() {
	progress.Printf("removing the stack")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(testContext), tearDownTimeout)
	defer cancel()
	if _, err := tryContext(ctx, "docker", "compose", "down", "--volumes", "--remove-orphans", "--timeout", "5"); err != nil {
		progress.Printf("%v", err)
	}
	// Those of docker-compose.sentinel.yaml, which is not in COMPOSE_FILE. The bridge of a network that stays takes its
	// addresses from the next engine's.
	for _, kind := range []string{"network", "volume"} {
		for _, id := range labelled(kind) {
			if _, err := tryContext(ctx, "docker", kind, "rm", id); err != nil {
				progress.Printf("%v", err)
			}
		}
	}
}
