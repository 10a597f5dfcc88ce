package publisher

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/redisnode"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

// Check fails for the reason for which a write fails, and writes nothing.
func TestCheckFailsAsWritesDo(t *testing.T) {
	redistest.Require(t)
	config := func(c *redis.Client, name, value string) error { return c.ConfigSet(t.Context(), name, value).Err() }
	for _, tt := range []struct {
		name    string
		breakIt func(s *redistest.Server, c *redis.Client) error
		want    string
	}{
		{"memory", func(_ *redistest.Server, c *redis.Client) error { return config(c, "maxmemory", "1") }, "OOM"},
		{"disk", func(s *redistest.Server, c *redis.Client) error {
			// A folder in the place of the dump file makes the save fail.
			if err := os.MkdirAll(filepath.Join(s.Dir(), "dump.rdb", "x"), 0o700); err != nil {
				return err
			}
			if err := errors.Join(config(c, "save", "3600 1"), c.BgSave(t.Context()).Err()); err != nil {
				return err
			}
			eventually.True(t, "failed save", func() bool {
				return strings.Contains(c.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
			})
			return nil
		}, "MISCONF"},
		{"replicas", func(_ *redistest.Server, c *redis.Client) error { return config(c, "min-replicas-to-write", "1") }, "NOREPLICAS"},
		{"role", func(_ *redistest.Server, c *redis.Client) error {
			return c.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err()
		}, "not a primary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t)
			p, c := newPublisher(t, s.Addr()), client(t, s.Addr())
			write(t, p, set("a", "1"))
			if err := p.Check(t.Context()); err != nil {
				t.Fatalf("a server that accepts writes: %v", err)
			}
			before := redistest.Contents(t, c)
			if err := tt.breakIt(s, c); err != nil {
				t.Fatal(err)
			}
			err := p.Check(t.Context())
			for range 2 { // the first error may be the refusal that shows the new role
				if err != nil && strings.Contains(err.Error(), tt.want) {
					break
				}
				err = p.Check(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %s", err, tt.want)
			}
			if _, err := p.Write(t.Context(), set("a", "2")); !errors.Is(err, ErrNotWritten) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write: %v, want %s", err, tt.want)
			}
			if after := redistest.Contents(t, c); after != before {
				t.Errorf("it wrote:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// A command that the access list denies is detected before anything is written.
func TestAccessListWithoutACommand(t *testing.T) {
	redistest.Require(t)
	const all = "time evalsha script|load info get exists getrange xrevrange set del xadd mset publish"
	s := redistest.Start(t)
	admin := client(t, s.Addr())
	grant := func(without string) {
		t.Helper()
		rules := []any{"ACL", "SETUSER", "w", "reset", "on", ">pw", "~{posts:0}:*", "&posts_updates"}
		for command := range strings.FieldsSeq(all) {
			if command != without {
				rules = append(rules, "+"+command)
			}
		}
		if err := admin.Do(t.Context(), rules...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	grant("")
	p, err := New(Config{Redis: nodetest.New(t, s.Addr(), func(c *redisnode.Config) { c.Username, c.Password = "w", "pw" })})
	if err != nil {
		t.Fatal(err)
	}
	write(t, p, set("a", "1"))
	if err := p.Check(t.Context()); err != nil {
		t.Fatalf("with all commands: %v", err)
	}
	for without := range strings.FieldsSeq(all) {
		if without == "info" || without == "script|load" {
			continue // only used for a new server and a new script
		}
		grant(without)
		before := redistest.Contents(t, admin)
		if err := p.Check(t.Context()); err == nil {
			t.Errorf("without %s: Check passes", without)
		}
		writes := []protocol.Write{set("a", "2")}
		switch without {
		case "getrange":
			writes[0].If = protocol.Condition{Tags: []protocol.Tag{{}}}
		case "del", "set": // used by deletes, and by writes that begin a new history
			writes[0] = protocol.Write{Op: protocol.Delete, Key: "a"}
		}
		if _, err := p.Write(t.Context(), writes...); !errors.Is(err, ErrNotWritten) {
			t.Errorf("without %s: %v, want not written", without, err)
		}
		if after := redistest.Contents(t, admin); after != before {
			t.Errorf("without %s, a partial write:\n%s\nwas\n%s", without, after, before)
		}
	}
	grant("")
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("with all commands again: %v", err)
	}
	if err := admin.Del(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Log).Err(); err != nil {
		t.Fatal(err)
	}
	for _, without := range []string{"set", "del", "xadd", "mset", "publish"} {
		grant(without)
		before := redistest.Contents(t, admin)
		if _, err := p.Write(t.Context(), set("a", "3")); !errors.Is(err, ErrNotWritten) {
			t.Errorf("a new history without %s: %v, want not written", without, err)
		}
		if after := redistest.Contents(t, admin); after != before {
			t.Errorf("a new history without %s, a partial write:\n%s\nwas\n%s", without, after, before)
		}
	}
}

// The sequence is stored together with the values, so the right to do it for each of them is not enough.
func TestAccessListForValuesOnly(t *testing.T) {
	redistest.Require(t)
	s := redistest.Start(t)
	admin := client(t, s.Addr())
	grant := func(selector string) {
		t.Helper()
		err := admin.Do(t.Context(), "ACL", "SETUSER", "w", "reset", "on", ">pw", "~{posts:0}:*", "&posts_updates", "+@all", "-mset", selector).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	grant("(+mset ~{posts:0}:*)")
	p, err := New(Config{Redis: nodetest.New(t, s.Addr(), func(c *redisnode.Config) { c.Username, c.Password = "w", "pw" })})
	if err != nil {
		t.Fatal(err)
	}
	write(t, p, set("a", "1"))
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("with the right to set both: %v", err)
	}
	grant("(+mset ~{posts:0}:p:*)")
	before := redistest.Contents(t, admin)
	if _, err := p.Write(t.Context(), set("a", "2")); !errors.Is(err, ErrNotWritten) {
		t.Errorf("Write: %v, want not written", err)
	}
	if err := p.Check(t.Context()); err == nil {
		t.Error("Check passes")
	}
	if after := redistest.Contents(t, admin); after != before {
		t.Errorf("it wrote:\n%s\nwas\n%s", after, before)
	}
}

// Without memory, sets write nothing, also several in one commit and in a new history. A delete frees memory and takes place as
// a whole.
func TestWritesWithoutMemory(t *testing.T) {
	redistest.Require(t)
	s := redistest.Start(t)
	p, c, k := newPublisher(t, s.Addr()), client(t, s.Addr()), protocol.NewKeys(protocol.DefaultNamespace)
	for _, missing := range []string{"", k.Seq, k.Epoch, k.Log} {
		write(t, p, set("a", "1"), set("b", "1"))
		if err := c.Del(t.Context(), missing).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
			t.Fatal(err)
		}
		before := redistest.Contents(t, c)
		for _, writes := range [][]protocol.Write{{set("a", "2")}, {set("a", "2"), set("c", "2")}} {
			if _, err := p.Write(t.Context(), writes...); !errors.Is(err, ErrNotWritten) {
				t.Errorf("without %q, %d sets: %v, want not written", missing, len(writes), err)
			}
			if after := redistest.Contents(t, c); after != before {
				t.Errorf("without %q, %d sets wrote:\n%s\nwas\n%s", missing, len(writes), after, before)
			}
		}
		deleted := write(t, p, protocol.Write{Op: protocol.Delete, Key: "b"})[0]
		if seq, err := c.Get(t.Context(), k.Seq).Uint64(); err != nil || seq != deleted.Token.Version {
			t.Errorf("without %q, the sequence after a delete: %d, %v; want %d", missing, seq, err, deleted.Token.Version)
		}
		if last, err := c.XRevRangeN(t.Context(), k.Log, "+", "-", 1).Result(); err != nil || protocol.LogEnd(last).WriteID != deleted.WriteID {
			t.Errorf("without %q, the log after a delete: %v, %v", missing, last, err)
		}
		if err := c.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
			t.Fatal(err)
		}
	}
}
