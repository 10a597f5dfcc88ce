package replica

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/test/redistest"
)

// fill brings a server to its memory limit.
func fill(t testing.TB, c *redis.Client) {
	t.Helper()
	if err := c.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
}

// At Redis's memory limit deletes work, because they free memory, and sets are refused before they change anything, also
// when they would begin a history.
func TestMemoryLimit(t *testing.T) {
	redistest.Require(t)
	for name, prepare := range map[string]func(t *testing.T, p *publisher.Publisher, c *redis.Client){
		"empty":   func(*testing.T, *publisher.Publisher, *redis.Client) {},
		"history": func(t *testing.T, p *publisher.Publisher, _ *redis.Client) { write(t, p, set("a", "1"), set("b", "1")) },
		"no epoch": func(t *testing.T, p *publisher.Publisher, c *redis.Client) {
			write(t, p, set("a", "1"), set("b", "1"))
			if err := c.Del(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Epoch).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := redistest.Start(t).Addr()
			p, c := newPublisher(t, addr), client(t, addr)
			prepare(t, p, c)
			before := redistest.Contents(t, c)
			fill(t, c)
			for _, writes := range [][]protocol.Write{{set("a", "2")}, {set("new", "2")}, {set("new", "2"), set("a", "2")}} {
				if _, err := p.Write(t.Context(), writes...); !errors.Is(err, publisher.ErrNotWritten) || !redis.HasErrorPrefix(err, "OOM") {
					t.Errorf("a set at the memory limit: %v", err)
				}
				if after := redistest.Contents(t, c); after != before {
					t.Fatalf("a refused set changed\n%s\nto\n%s", before, after)
				}
			}
			if before == "" {
				return
			}
			r := startReplica(t, addr)
			ready(t, r)
			if results := write(t, p, protocol.Write{Op: protocol.Delete, Key: "a"}); results[0].Outcome != protocol.Deleted {
				t.Errorf("a delete at the memory limit: %+v", results)
			}
			holds(t, r, "a", "")
			holds(t, r, "b", "1")
		})
	}
}
