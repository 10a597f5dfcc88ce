package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/writer"
)

// roleVariable makes the test binary run as a process of the stack instead of its tests: a process
// can be killed, and told to stop by a signal, where Run in the test's own cannot.
const roleVariable = "E2E_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "writer":
		endWithParent()
		os.Exit(daemon.Main(nil, os.Getenv, os.Stderr, writer.ParseConfig, func(ctx context.Context, cfg writer.Config) error {
			cfg.Listening = tell
			return writer.Run(ctx, cfg)
		}))
	case "reader":
		endWithParent()
		os.Exit(daemon.Main(nil, os.Getenv, os.Stderr, reader.ParseConfig, func(ctx context.Context, cfg reader.Config) error {
			cfg.Listening = tell
			return reader.Run(ctx, cfg)
		}))
	default:
		fmt.Fprintf(os.Stderr, "%s=%q: want writer or reader\n", roleVariable, role)
		os.Exit(2)
	}
}

// tell passes the address on to the test, which reads the first line of the output.
func tell(addr string) { fmt.Println(addr) }

// endWithParent ends this process when the test's process does, which holds the other end of its
// input: a test that panics leaves nothing behind.
func endWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}
