// Command redis runs the tests of the protocol on servers other than the installed redis-server: Redis 8, Valkey 8
// and Valkey 9 from newer suites of Debian. It fails if a test fails on one of them. A server that cannot be fetched is
// reported as skipped.
//
//	go run ./test/redis [SUITE PRODUCT]    only one server, such as: forky valkey
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"heavy-read-api/test/redis/debian"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	servers := [][2]string{{"forky", "redis"}, {"trixie", "valkey"}, {"forky", "valkey"}}
	switch len(args) {
	case 0:
	case 2:
		servers = [][2]string{{args[0], args[1]}}
	default:
		return errors.New("usage: go run ./test/redis [SUITE PRODUCT]")
	}
	var summary []string
	failed := 0
	for _, s := range servers {
		suite, product := s[0], s[1]
		fmt.Printf("-- %s of Debian %s\n", product, suite)
		server, err := debian.Fetch(ctx, suite, product)
		if err != nil {
			summary = append(summary, fmt.Sprintf("skipped: %v", err))
			continue
		}
		fmt.Printf("-- testing on %s\n", server.Name)
		if err := test(ctx, server.Bin); err != nil {
			failed++
			summary = append(summary, fmt.Sprintf("FAILED on %s: %v", server.Name, err))
			continue
		}
		summary = append(summary, "tested on "+server.Name)
	}
	for _, line := range summary {
		fmt.Println(line)
	}
	if failed > 0 {
		return fmt.Errorf("tests failed on %d of %d servers", failed, len(servers))
	}
	return ctx.Err()
}

// test runs the tests whose outcome depends on the server: scripts, subscriptions, snapshots, roles, failovers, slot
// migrations and access lists. bin has the redis-server to test.
func test(ctx context.Context, bin string) error {
	var both errgroup.Group // without a context, because a failure of one must not end the other
	both.Go(func() error {
		return goTest(ctx, bin, "./internal/test/e2e",
			"-run", "AccessList|SentinelKill|ClusterKill|ClusterMigration|ClusterReshard|ClusterAtomic|Relay|RedisIsFlushed")
	})
	both.Go(func() error {
		return goTest(ctx, bin, "./internal/redisnode", "./internal/cache/publisher", "./internal/cache/replica", "-run", "/^redis$",
			"-skip", "Simulation|Memory|Store|Growth|Grown|PageSize|SlowLink|ForeignKeys|Crowded|Idle|EmptyRedis|False|DuringClose")
	})
	return both.Wait()
}

func goTest(ctx context.Context, bin string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go test: %w", err)
	}
	// A pattern that no longer matches must not pass as a test.
	if strings.Contains(out.String(), "[no tests to run]") || strings.Contains(out.String(), "[no test files]") {
		return errors.New("a package ran no test")
	}
	return nil
}
