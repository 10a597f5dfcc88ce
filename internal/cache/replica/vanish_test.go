package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/census"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
)

// hazard waits until the replica reports a hazard with this text.
func hazard(t testing.TB, r *Replica, want string) {
	t.Helper()
	eventually.Nil(t, func() error {
		if all := strings.Join(r.Status().Hazards, "\n"); !strings.Contains(all, want) {
			return fmt.Errorf("hazards %q, want %q", all, want)
		}
		return nil
	})
}

// Values that Redis loses without a write are dropped from memory too, and the loss is reported.
func TestVanishedValues(t *testing.T) {
	redistest.Require(t)
	prefix := protocol.NewKeys(protocol.DefaultNamespace).Prefix
	for name, lose := range map[string]func(t *testing.T, c *redis.Client) error{
		"deleted": func(t *testing.T, c *redis.Client) error { return c.Del(t.Context(), prefix+"a").Err() },
		"expired": func(t *testing.T, c *redis.Client) error {
			return c.PExpire(t.Context(), prefix+"a", time.Millisecond).Err()
		},
		// Keys of other programs hide the number of missing keys.
		"evicted among other keys": func(t *testing.T, c *redis.Client) error {
			if err := c.Expire(t.Context(), prefix+"a", time.Hour).Err(); err != nil {
				return err
			}
			if err := c.ConfigSet(t.Context(), "maxmemory-policy", "volatile-ttl").Err(); err != nil {
				return err
			}
			fill(t, c)
			eventually.True(t, "eviction", func() bool {
				_ = c.Set(t.Context(), "other", "", 0).Err() // refused once there is nothing to evict
				return c.Exists(t.Context(), prefix+"a").Val() == 0
			})
			if err := c.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
				return err
			}
			return c.MSet(t.Context(), "s1", "", "s2", "").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := redistest.Start(t).Addr()
			p, c := newPublisher(t, addr), client(t, addr)
			write(t, p, set("a", "1"), set("b", "1"))
			var log logtest.Buffer
			r := startReplica(t, addr, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			ready(t, r)
			holds(t, r, "a", "1")
			if err := lose(t, c); err != nil {
				t.Fatal(err)
			}
			holds(t, r, "a", "")
			holds(t, r, "b", "1")
			hazard(t, r, "dropped from memory: 1 (")
			if !strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("the loss is not logged: %s", log.String())
			}
		})
	}
}

// Settings with which Redis loses values are reported.
func TestHazards(t *testing.T) {
	redistest.Require(t)
	addr := redistest.Start(t, redistest.Config("maxmemory-policy allkeys-lru")).Addr()
	p, c := newPublisher(t, addr), client(t, addr)
	write(t, p, set("a", "1"), set("b", "1"))
	var log logtest.Buffer
	r := startReplica(t, addr, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	hazard(t, r, "maxmemory-policy allkeys-lru")
	if n := strings.Count(log.String(), "Redis may lose values without a write"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
	if found, err := p.Hazards(t.Context()); err != nil || len(found) != 1 {
		t.Errorf("the publisher reports %q, %v", found, err)
	}
	if err := c.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Expire(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Prefix+"a", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	hazard(t, r, "at least 1 of the posts in Redis will expire")
	if all := strings.Join(r.Status().Hazards, "\n"); strings.Contains(all, "maxmemory-policy") {
		t.Errorf("still reported: %s", all)
	}
}

// Without INFO no hazard is reported, and the log mentions it at debug level only.
func TestHazardsWithoutInfo(t *testing.T) {
	addr := redistest.StartEmbedded(t).Addr()
	p := newPublisher(t, addr)
	write(t, p, set("a", "1"))
	var log logtest.Buffer
	r := startReplica(t, addr, func(cfg *Config) {
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	eventually.True(t, "line of the log", func() bool { return strings.Contains(log.String(), "cannot check whether Redis evicts") })
	for line := range bytes.Lines([]byte(log.String())) {
		if bytes.Contains(line, []byte("cannot check")) && !bytes.Contains(line, []byte("level=DEBUG")) {
			t.Errorf("%s", line)
		}
	}
	if s := r.Status(); len(s.Hazards) > 0 || !s.Synced {
		t.Errorf("%+v", s)
	}
}

// A census requires a snapshot only when keys of the shard may be missing.
func TestVanishWatchCompares(t *testing.T) {
	now := census.Census{Run: "1"}
	w := newVanishWatch(nil, quiet())
	step := func(want bool, valid bool, others int64, change func(c *census.Census)) {
		t.Helper()
		change(&now)
		w.suspect = ""
		if w.compare(now, valid, others); (w.suspect != "") != want {
			t.Errorf("%+v with %d keys of others: %q", now, others, w.suspect)
		}
	}
	same := func(*census.Census) {}
	step(false, true, 5, func(c *census.Census) { c.Evicted, c.Expired = 7, 7 }) // before the first check
	step(false, true, 5, same)
	step(false, true, 6, same)
	step(true, true, 5, same)
	step(false, false, -3, same) // census and memory are not of the same instant
	step(true, true, 5, func(c *census.Census) { c.Evicted++ })
	step(true, true, 5, func(c *census.Census) { c.Expired++ })
	step(false, true, 5, func(c *census.Census) { c.Run, c.Evicted, c.Expired = "2", 100, 100 })
	step(true, true, -1, same)
}
