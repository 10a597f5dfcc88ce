// Package redistest gives tests a Redis of their own: a real redis-server that
// can be killed, restarted, paused and failed over, a deployment of several with
// Sentinels or as a Redis Cluster, or the embedded miniredis where no redis-server
// is installed.
//
// Everything here is called from a test and fails that test when it cannot do
// its job, so nothing returns an error. The methods that may fail the test are
// for the test's own goroutine.
package redistest

import (
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Have reports whether redis-server is on PATH.
func Have() bool {
	_, err := exec.LookPath("redis-server")
	return err == nil
}

// Require skips the test unless redis-server is on PATH. CI counts skips by
// this message and fails on any.
func Require(t testing.TB) {
	t.Helper()
	if !Have() {
		t.Skip("redis-server not on PATH")
	}
}

// Backend is a Redis that one conformance suite can run over, whatever it is.
type Backend interface {
	Name() string // "redis" or "embedded", fit for a subtest's name
	Addr() string // host:port, the same for the backend's whole life
	Real() bool   // whether it is a redis-server, which can do everything
	Client(t testing.TB) *redis.Client
}

// Each runs f as a subtest over the embedded Redis and over a real one, the
// latter started with opts. The real one's subtest is skipped where there is no
// redis-server.
func Each(t *testing.T, f func(t *testing.T, b Backend), opts ...Option) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { f(t, StartEmbedded(t)) })
	t.Run("redis", func(t *testing.T) {
		Require(t)
		f(t, Start(t, opts...))
	})
}

// clientOptions suits a test's own look into Redis. A command is sent once: a
// client that repeats one whose reply was lost would change what is tested.
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
