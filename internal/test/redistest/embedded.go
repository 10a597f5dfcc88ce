package redistest

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// Embedded is a miniredis in the test's own process. It has no disk, no output
// limits and no replication: tests of these need a Server.
type Embedded struct {
	*miniredis.Miniredis
	addr string
}

// StartEmbedded starts a miniredis that ends with the test.
func StartEmbedded(t testing.TB) *Embedded {
	t.Helper()
	m := miniredis.RunT(t)
	return &Embedded{Miniredis: m, addr: m.Addr()}
}

// Name is "embedded".
func (e *Embedded) Name() string { return "embedded" }

// Addr is the address, also while the server is closed: miniredis itself
// answers that question only while it runs, and panics otherwise.
func (e *Embedded) Addr() string { return e.addr }

// Real is false.
func (e *Embedded) Real() bool { return false }

// Client returns a client for the test's own use, closed when t ends.
func (e *Embedded) Client(t testing.TB) *redis.Client {
	return newClient(t, clientOptions(e.addr, ""))
}
