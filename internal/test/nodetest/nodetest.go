// Package nodetest creates redisnode.Finders for tests.
package nodetest

import (
	"log/slog"
	"testing"

	"heavy-read-api/internal/redisnode"
)

// New returns a Finder for the Redis server at addr that logs nothing. It is closed when the test ends.
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
