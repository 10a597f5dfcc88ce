package cache

import (
	"errors"
	"heavy-read-api/internal/test/redistest"
	"testing"

	"github.com/redis/go-redis/v9"
)

// fill brings a server to its memory limit.
func fill(t testing.TB, c *redis.Client) {
	t.Helper()
	if err := c.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
}

// At the memory limit deletes work, because they free memory, and sets are refused before they change
// anything, also where they would begin a history.
func TestMemoryLimit(t *testing.T) {
	redistest.Require(t)
	for name, prepare := range map[string]func(t *testing.T, p *Publisher, c *redis.Client){
		"empty":   func(*testing.T, *Publisher, *redis.Client) {},
		"history": func(t *testing.T, p *Publisher, _ *redis.Client) { write(t, p, set("a", "1"), set("b", "1")) },
		"no epoch": func(t *testing.T, p *Publisher, c *redis.Client) {
			write(t, p, set("a", "1"), set("b", "1"))
			if err := c.Del(t.Context(), newKeys(defaultNamespace).epoch).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := redistest.Start(t).Addr()
			p, c := publisher(t, addr), client(t, addr)
			prepare(t, p, c)
			before := contents(t, c)
			fill(t, c)
			for _, writes := range [][]Write{{set("a", "2")}, {set("new", "2")}, {set("new", "2"), set("a", "2")}} {
				if _, err := p.Write(t.Context(), writes...); !errors.Is(err, ErrNotWritten) || !redis.HasErrorPrefix(err, "OOM") {
					t.Errorf("a set at the memory limit: %v", err)
				}
				if after := contents(t, c); after != before {
					t.Fatalf("a refused set changed\n%s\nto\n%s", before, after)
				}
			}
			if before == "" {
				return
			}
			r := replica(t, addr)
			ready(t, r)
			if results := write(t, p, Write{Op: Delete, Key: "a"}); results[0].Outcome != Deleted {
				t.Errorf("a delete at the memory limit: %+v", results)
			}
			holds(t, r, "a", "")
			holds(t, r, "b", "1")
		})
	}
}
