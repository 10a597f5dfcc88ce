package redistest

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded is a miniredis in the test's process. It has no persistence, no output buffer limits and no
// replication; tests of these need a Server.
type Embedded struct {
	*miniredis.Miniredis
	addr string
}

// StartEmbedded starts a miniredis. It is stopped when the test ends.
func StartEmbedded(t testing.TB) *Embedded {
	t.Helper()
	m := miniredis.RunT(t)
	return &Embedded{Miniredis: m, addr: m.Addr()}
}

// StartEmbeddedWithPassword starts a miniredis that requires a password. It is stopped when the test ends. A password must
// be set before the start, because miniredis reads it without a lock.
func StartEmbeddedWithPassword(t testing.TB, password string) *Embedded {
	t.Helper()
	m := miniredis.NewMiniRedis()
	m.RequireAuth(password)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return &Embedded{Miniredis: m, addr: m.Addr()}
}

// Name returns "embedded".
func (e *Embedded) Name() string { return "embedded" }

// Addr returns host:port. Unlike miniredis's Addr it does not panic while the server is closed.
func (e *Embedded) Addr() string { return e.addr }

// Real returns false.
func (e *Embedded) Real() bool { return false }

// Client returns a client for the test's own commands. It is closed when t ends.
func (e *Embedded) Client(t testing.TB) *redis.Client {
	return newClient(t, clientOptions(e.addr, ""))
}
