package publisher

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// client returns a client for the test's own commands.
func client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	n, err := nodetest.New(t, addr).Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n.Client
}

func newPublisher(t testing.TB, addr string) *Publisher {
	t.Helper()
	p, err := New(Config{Redis: nodetest.New(t, addr)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func set(key, value string) protocol.Write {
	return protocol.Write{Op: protocol.Set, Key: key, Value: []byte(value)}
}

// write performs writes that must succeed.
func write(t testing.TB, p *Publisher, writes ...protocol.Write) []Result {
	t.Helper()
	results, err := p.Write(t.Context(), writes...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func each(t *testing.T, f func(t *testing.T, addr string)) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) { f(t, b.Addr()) })
}
