package writer

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
)

// waitReady waits until /ready answers with status and a body that contains all texts.
func (w *instance) waitReady(t *testing.T, status int, texts ...string) {
	t.Helper()
	eventually.Nil(t, func() error {
		res := w.do(t, "GET", "/ready", "")
		for _, text := range texts {
			if res.status != status || !strings.Contains(string(res.body), text) {
				return fmt.Errorf("/ready: %d %s, want %d and %q", res.status, res.body, status, text)
			}
		}
		if res.status != status {
			return fmt.Errorf("/ready: %d %s, want %d", res.status, res.body, status)
		}
		return nil
	})
}

// /ready reports whether Redis accepts writes, and if not, the reason, even if no write was tried. The answer to a
// write gives the same reason.
func TestReadyWhenWritesAreAccepted(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	set := func(name, value string) func(*testing.T, *redistest.Server, *redis.Client) error {
		return func(t *testing.T, _ *redistest.Server, c *redis.Client) error {
			return c.ConfigSet(t.Context(), name, value).Err()
		}
	}
	do := func(args ...any) func(*testing.T, *redistest.Server, *redis.Client) error {
		return func(t *testing.T, _ *redistest.Server, c *redis.Client) error {
			return c.Do(t.Context(), args...).Err()
		}
	}
	for _, tt := range []struct {
		name           string
		fail, restore  func(*testing.T, *redistest.Server, *redis.Client) error
		ready          []string // texts in the answer of /ready
		answer         string   // text in the answer to a write
		deletesAllowed bool
	}{
		{"maxmemory", set("maxmemory", "1"), set("maxmemory", "0"),
			[]string{`"no writes"`, "Redis is out of memory: raise its maxmemory, or delete posts", "OOM"}, "Redis is out of memory: raise its maxmemory, or delete posts, which still works", true},
		{"replica", do("REPLICAOF", "127.0.0.1", "1"), do("REPLICAOF", "NO", "ONE"),
			[]string{`"no writes"`, "not a primary: it replicates 127.0.0.1:1"}, "send the request again", false},
		{"access list", do("ACL", "SETUSER", "default", "-publish"), do("ACL", "SETUSER", "default", "+publish"),
			[]string{`"no writes"`, "access list of Redis does not permit", "PUBLISH"}, "access list of Redis does not permit the writer to write", false},
		{"access list without a read", do("ACL", "SETUSER", "default", "-exists"), do("ACL", "SETUSER", "default", "+exists"),
			[]string{`"no writes"`, "access list of Redis does not permit", "EXISTS"}, "access list of Redis does not permit the writer to write", false},
		{"access list without scripts", do("ACL", "SETUSER", "default", "-evalsha"), do("ACL", "SETUSER", "default", "+evalsha"),
			[]string{`"no writes"`, "access list of Redis does not permit", "evalsha"}, "access list of Redis does not permit the writer to write", false},
		{"disk", func(t *testing.T, s *redistest.Server, c *redis.Client) error {
			// BGSAVE fails if a folder has the name of its file.
			if err := os.MkdirAll(filepath.Join(s.Dir(), "dump.rdb", "x"), 0o700); err != nil {
				return err
			}
			return c.BgSave(t.Context()).Err()
		}, func(t *testing.T, s *redistest.Server, c *redis.Client) error {
			if err := os.RemoveAll(filepath.Join(s.Dir(), "dump.rdb")); err != nil {
				return err
			}
			return c.BgSave(t.Context()).Err()
		}, []string{`"no writes"`, "Redis cannot write to its disk", "MISCONF"}, "Redis cannot write to its disk", false},
		{"replicas", set("min-replicas-to-write", "1"), set("min-replicas-to-write", "0"),
			[]string{`"no writes"`, "NOREPLICAS"}, "has lost its Redis replicas", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, redistest.Config("save 3600 1000000"))
			db := s.Client(t)
			var log logtest.Buffer
			w := start(t, s.Addr(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			w.waitReady(t, 200, `"ready"`)
			wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
			if err := tt.fail(t, s, db); err != nil {
				t.Fatal(err)
			}
			w.waitReady(t, 503, tt.ready...)
			eventually.True(t, "warning in the log", func() bool { return strings.Contains(log.String(), "Redis accepts no writes") })
			p := wantProblem(t, w.do(t, "POST", "/create", line("b", "t")), 503, "")
			if !strings.Contains(p.Detail, "nothing was written") || !strings.Contains(p.Detail, tt.answer) {
				t.Errorf("the answer to a write: %q, want %q", p.Detail, tt.answer)
			}
			res := w.do(t, "DELETE", "/post?id=a", "")
			if tt.deletesAllowed && res.status != 204 || !tt.deletesAllowed && res.status != 503 {
				t.Errorf("DELETE: %d %s", res.status, res.body)
			}
			if err := tt.restore(t, s, db); err != nil {
				t.Fatal(err)
			}
			w.waitReady(t, 200, `"ready"`)
			wantSuccess(t, db, w.do(t, "POST", "/create", line("b", "t")), 201, "b")
		})
	}
}

// If Redis is unusable, /ready and the log quote the error of Redis or of the network.
func TestReadyQuotesRedis(t *testing.T) {
	redistest.Require(t)
	addr := redistest.Start(t, redistest.Password("right")).Addr()
	for _, tt := range []struct {
		name string
		set  func(c *Config)
		want string
	}{
		{"wrong password", func(c *Config) { c.Redis.Password = "wrong" }, "WRONGPASS"},
		{"no password", func(*Config) {}, "NOAUTH"},
		{"database", func(c *Config) { c.Redis.Password, c.Redis.DB = "right", 99 }, "DB index is out of range"},
		{"host", func(c *Config) { c.Redis.Addr = []string{"unknown.invalid:6379"} }, "unknown.invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log logtest.Buffer
			w := start(t, addr, defaultTimeout, tt.set, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			w.waitReady(t, 503, tt.want)
			eventually.True(t, "reason in the log", func() bool { return strings.Contains(log.String(), tt.want) })
		})
	}
}

// If Redis may evict posts, the writer is ready and warns.
func TestReadyWarnsOfEviction(t *testing.T) {
	redistest.Require(t)
	s := redistest.Start(t, redistest.Config("maxmemory-policy allkeys-lru"))
	var log logtest.Buffer
	w := start(t, s.Addr(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	w.waitReady(t, 200, `"ready"`, "maxmemory-policy allkeys-lru")
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "allkeys-lru") {
		t.Errorf("%d warnings: %s", n, log.String())
	}
}

// laterFormat begins the problem that the writer reports for a post changed by raiseFormat.
const laterFormat = "posts in Redis have format 2"

// raiseFormat gives a stored post the format of a later build, and returns its previous value.
func raiseFormat(t *testing.T, db *redis.Client, id string) (value string) {
	t.Helper()
	value, err := db.Get(t.Context(), postKey(id)).Result()
	if err != nil {
		t.Fatal(err)
	}
	const format = 24 // offset of the format in a stored value
	later := value[:format] + string([]byte{value[format] + 1}) + value[format+1:]
	if err := db.Set(t.Context(), postKey(id), later, 0).Err(); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestPostsOfAnotherFormat has a post of a later build in Redis. The writer refuses to write posts of its own format
// beside it, and reports the reason.
func TestPostsOfAnotherFormat(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
		value := raiseFormat(t, db, "a")
		w.waitReady(t, 503, `"no writes","reasons":["`+laterFormat)
		before := version(t, db)
		for target, method := range map[string]string{"/create": "POST", "/post?id=b": "PUT", "/post?id=a": "DELETE", "/import": "POST"} {
			if p := wantProblem(t, w.do(t, method, target, line("b", "t")), 503, ""); !strings.Contains(p.Detail, laterFormat) {
				t.Errorf("%s %s: %s", method, target, p.Detail)
			}
		}
		if after := version(t, db); after != before {
			t.Errorf("version %s, want %s: a refused request was executed", after, before)
		}
		if err := db.Set(t.Context(), postKey("a"), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		eventually.Nil(t, func() error {
			if res := w.do(t, "POST", "/create", line("c", "t")); res.status >= 300 {
				return fmt.Errorf("%d %s", res.status, res.body)
			}
			return nil
		})
	})
}

// A check that times out does not show that the posts of another format are gone, and a write has more time than a check.
func TestAnotherFormatBehindASlowLink(t *testing.T) {
	t.Parallel()
	b := redistest.StartEmbedded(t)
	link := faultnet.NewProxy(t, b.Addr())
	w := start(t, link.Addr())
	db := b.Client(t)
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a")
	raiseFormat(t, db, "a")
	w.waitReady(t, 503, laterFormat)
	link.Delay(faultnet.ToClient, checkTimeout)
	w.waitReady(t, 503, `"no redis"`)
	before := version(t, db)
	wantProblem(t, w.do(t, "POST", "/create", line("b", "t")), 503, "")
	if after := version(t, db); after != before {
		t.Errorf("version %s, want %s: something was written", after, before)
	}
}

// The first write of a writer may come before its first check has ended.
func TestAnotherFormatAtTheStart(t *testing.T) {
	b := redistest.StartEmbedded(t)
	db := b.Client(t)
	wantSuccess(t, db, start(t, b.Addr()).do(t, "POST", "/create", line("a", "t")), 201, "a")
	raiseFormat(t, db, "a")
	before := version(t, db)
	link := faultnet.NewProxy(t, b.Addr())
	link.Delay(faultnet.ToClient, checkTimeout/20)
	p := wantProblem(t, start(t, link.Addr()).do(t, "POST", "/create", line("b", "t")), 503, "")
	if !strings.Contains(p.Detail, laterFormat) {
		t.Errorf("the answer to a write: %s", p.Detail)
	}
	if after := version(t, db); after != before {
		t.Errorf("version %s, want %s: something was written", after, before)
	}
}
