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

// roleVariable makes the test binary run as a process of the stack instead of its tests. Unlike Run in the
// test's own process, it can be killed and signaled.
const roleVariable = "E2E_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "writer":
		endWithParent()
		os.Exit(daemon.Main(nil, os.Getenv, os.Stderr, writer.ParseConfig, func(ctx context.Context, cfg writer.Config) error {
			cfg.Listening = printAddress
			return writer.Run(ctx, cfg)
		}))
	case "reader":
		endWithParent()
		os.Exit(daemon.Main(nil, os.Getenv, os.Stderr, reader.ParseConfig, func(ctx context.Context, cfg reader.Config) error {
			cfg.Listening = printAddress
			return reader.Run(ctx, cfg)
		}))
	case "followers":
		endWithParent()
		if err := follow(os.Getenv("FOLLOW_ADDR"), os.Getenv("FOLLOWERS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "%s=%q: want writer, reader or followers\n", roleVariable, role)
		os.Exit(2)
	}
}

// printAddress prints the address as the first line of the output, which the test reads.
func printAddress(addr string) { fmt.Println(addr) }

// endWithParent exits when standard input is closed. The test's process holds the other end, so the service
// ends even if the test panics.
func endWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}
