package reader

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
)

// A reader that Redis refuses quotes the error reply of Redis in /ready, /status and the log.
func TestReadyQuotesRedis(t *testing.T) {
	redistest.Require(t)
	s := redistest.Start(t, redistest.Password("right"), redistest.User("mute", "pw", "~* &* +@all -subscribe"), redistest.User("blind", "pw", "~* &* +@all -evalsha_ro -eval_ro"))
	for _, tt := range []struct {
		name string
		set  func(c *Config)
		want string
	}{
		{"wrong password", func(c *Config) { c.Redis.Password = "wrong" }, "WRONGPASS"},
		{"no password", func(*Config) {}, "NOAUTH"},
		{"unknown user", func(c *Config) { c.Redis.Username, c.Redis.Password = "nobody", "wrong" }, "WRONGPASS"},
		{"database", func(c *Config) { c.Redis.Password, c.Redis.DB = "right", 99 }, "DB index is out of range"},
		{"host", func(c *Config) { c.Redis.Addr = []string{"unknown.invalid:6379"} }, "no such host"},
		{"access list without scripts", func(c *Config) { c.Redis.Username, c.Redis.Password = "blind", "pw" }, "NOPERM"},
		{"access list without SUBSCRIBE", func(c *Config) { c.Redis.Username, c.Redis.Password = "mute", "pw" }, "NOPERM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log logtest.Buffer
			r := start(t, s.Addr(), tt.set, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			for _, path := range []string{"/ready", "/status"} {
				eventually.Nil(t, func() error {
					res := r.do(t, "GET", path)
					if strings.Contains(string(res.body), "does not answer") {
						t.Errorf("%s claims that Redis does not answer, but it does: %s", path, res.body)
					}
					if path == "/ready" && res.status != 503 || strings.Count(string(res.body), tt.want) != 1 {
						return fmt.Errorf("%s: %d %s, want 503 and %q once", path, res.status, res.body, tt.want)
					}
					return nil
				})
			}
			eventually.True(t, "reason in the log", func() bool { return strings.Contains(log.String(), tt.want) })
		})
	}
}

// A reader warns of an eviction policy of Redis in /ready and is ready all the same.
func TestReadyWarnsOfEviction(t *testing.T) {
	redistest.Require(t)
	s := redistest.Start(t, redistest.Config("maxmemory-policy volatile-lru"))
	r := startReady(t, s.Addr())
	eventually.Nil(t, func() error {
		if res := r.do(t, "GET", "/ready"); res.status != 200 || !strings.Contains(string(res.body), "maxmemory-policy volatile-lru") {
			return fmt.Errorf("/ready: %d %s", res.status, res.body)
		}
		return nil
	})
}
