// Package redistest starts Redis servers for tests: a redis-server process that can be killed, restarted,
// paused and failed over, deployments with Sentinels or as a Redis Cluster, and the embedded miniredis, which
// needs no redis-server.
//
// Functions and methods stop the test on errors instead of returning them. Call them only from the test's
// goroutine.
package redistest

import (
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Require skips the test unless redis-server is on PATH. CI fails if it finds this message.
func Require(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server not on PATH")
	}
}

// Backend is a Server or an Embedded, so that one suite can run over both.
type Backend interface {
	Name() string // "redis" or "embedded", for names of subtests
	Addr() string // host:port, constant
	Real() bool   // whether it is a redis-server with all features
	Client(t testing.TB) *redis.Client
}

// Each runs f as two subtests: with the embedded Redis, and with a redis-server started with opts. The
// latter is skipped if redis-server is not installed.
func Each(t *testing.T, f func(t *testing.T, b Backend), opts ...Option) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { f(t, StartEmbedded(t)) })
	t.Run("redis", func(t *testing.T) {
		Require(t)
		f(t, Start(t, opts...))
	})
}

// clientOptions are for the test's own commands. They disable retries, because a command that is repeated
// after a lost reply would change the outcome of a test.
func clientOptions(addr, password string) *redis.Options {
	return &redis.Options{
		Addr:                     addr,
		Password:                 password,
		DialTimeout:              2 * time.Second,
		ReadTimeout:              10 * time.Second,
		WriteTimeout:             10 * time.Second,
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1,
		DialerRetries:            1,
		PoolSize:                 8,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func newClient(t testing.TB, o *redis.Options) *redis.Client {
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
