// Package nodetest makes Finders for tests.
package nodetest

import (
	"log/slog"
	"testing"

	"heavy-read-api/internal/redisnode"
)

// New returns a Finder of the Redis at addr, without a log, that is closed with the test.
func New(t testing.TB, addr string, options ...func(*redisnode.Config)) *redisnode.Finder {
	t.Helper()
	cfg := redisnode.Config{Addrs: []string{addr}, Logger: slog.New(slog.DiscardHandler)}
	for _, o := range options {
		o(&cfg)
	}
	f, err := redisnode.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
