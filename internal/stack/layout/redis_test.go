package layout

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/test/redistest"
)

// testConfig returns the configuration of a stack with these settings, a run folder of its own and ports on which
// nothing listens.
func testConfig(t *testing.T, env ...string) Config {
	t.Helper()
	env = append(env, "RUN_DIR="+t.TempDir(), "REDIS_PORT=1", "SENTINEL_PORT=11", "REDIS_BUS_PORT=21")
	cfg, err := ParseConfig(nil, func(name string) string { return Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Env, cfg.Logger = append(os.Environ(), env...), slog.New(slog.DiscardHandler)
	return cfg
}

// The health of Sentinels without a quorum, and of Redis servers that lost each other.
func TestHealthNamesWhatIsMissing(t *testing.T) {
	server := func(name string, v serverView) serverView {
		v.peer = peer{name, name + ":1"}
		return v
	}
	sentinel := func(name, primary string, epoch int64, v sentinelView) sentinelView {
		v.usable = 1
		v.peer, v.primary, v.epoch = peer{name, name + ":1"}, primary+":1", epoch
		return v
	}
	away := errors.New("dial tcp 127.0.0.1:1: connect: connection refused")
	primary := server("redis-1", serverView{primary: true, replicas: 2, good: 2, required: 1})
	follower := server("redis-2", serverView{upstream: "redis-1:1", linkUp: true})
	s1, s2 := sentinel("sentinel-1", "redis-1", 1, sentinelView{}), sentinel("sentinel-2", "redis-1", 1, sentinelView{})
	tests := []struct {
		name      string
		servers   []serverView
		sentinels []sentinelView
		want      map[string]string // state, note and detail by name
	}{
		{
			"all is well", []serverView{primary, follower}, []sentinelView{s1, s2},
			map[string]string{
				"redis-1": "ready, primary, 2 Redis replicas: ", "redis-2": "ready, Redis replica of redis-1, link up: ",
				"sentinel-1": "ready, 2 of 2 agree on redis-1: ",
			},
		},
		{
			"the link of a Redis replica is down",
			[]serverView{primary, server("redis-2", serverView{upstream: "redis-1:1"})}, []sentinelView{s1, s2},
			map[string]string{"redis-2": "degraded, Redis replica of redis-1: the link is down"},
		},
		{
			"no Redis replica is connected",
			[]serverView{server("redis-1", serverView{primary: true, required: 1}), server("redis-2", serverView{err: away})}, []sentinelView{s1, s2},
			map[string]string{
				"redis-1": "degraded, primary: refuses writes: 0 of 1 required Redis replicas are connected (REDIS_MIN_REPLICAS)",
				"redis-2": "not ready, : connection refused",
			},
		},
		{
			"no quorum", []serverView{primary, follower},
			[]sentinelView{s1, {peer: peer{"sentinel-2", "sentinel-2:1"}, err: away}},
			map[string]string{
				"sentinel-1": "not ready, 1 of 2 agree on redis-1: no quorum: most Sentinels do not answer or name another primary",
				"sentinel-2": "not ready, : connection refused",
			},
		},
		{
			"no primary", []serverView{server("redis-1", serverView{err: away}), server("redis-2", serverView{upstream: "redis-1:1"})},
			[]sentinelView{sentinel("sentinel-1", "redis-1", 1, sentinelView{down: true}), s2},
			map[string]string{"sentinel-1": "not ready, 2 of 2 agree on redis-1: no primary: redis-1 does not answer or is being replaced"},
		},
		{
			"a primary that died this moment", []serverView{server("redis-1", serverView{err: away}), follower}, []sentinelView{s1, s2},
			map[string]string{"sentinel-2": "not ready, 2 of 2 agree on redis-1: no primary: redis-1 does not answer or is being replaced"},
		},
		{
			"nothing to promote", []serverView{primary, follower}, []sentinelView{{peer: s1.peer, primary: "redis-1:1", epoch: 1}, s2},
			map[string]string{"sentinel-1": "degraded, 2 of 2 agree on redis-1: no Redis replica could be promoted"},
		},
		{
			"an old primary and an old opinion",
			[]serverView{primary, server("redis-2", serverView{primary: true, good: 1, required: 1, replicas: 1}), server("redis-3", serverView{upstream: "redis-1:1", linkUp: true})},
			[]sentinelView{s1, sentinel("sentinel-2", "redis-2", 2, sentinelView{}), sentinel("sentinel-3", "redis-2", 2, sentinelView{})},
			map[string]string{
				"redis-1":    "degraded, primary, 2 Redis replicas: the Sentinels name redis-2",
				"redis-2":    "ready, primary, 1 Redis replica: ",
				"redis-3":    "degraded, Redis replica of redis-1, link up: the Sentinels name redis-2",
				"sentinel-1": "degraded, 2 of 3 agree on redis-2: it still names redis-1",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := groupView{servers: tt.servers, sentinels: tt.sentinels}
			l.settle()
			got := make(map[string]string)
			note := func(name string, h state.Health) {
				var p state.Process
				p.SetHealth(h)
				got[name] = p.State + ", " + p.Note + ": " + p.Detail
			}
			for _, s := range tt.servers {
				note(s.name, l.server(s.peer))
			}
			for _, s := range tt.sentinels {
				note(s.name, l.sentinel(s.peer))
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
		})
	}
}

// A start with other ports would follow a primary that is not there. It must not leave anything behind
// either, so that the ports can still be chosen after a first start that failed.
func TestSentinelsKeepTheirPorts(t *testing.T) {
	redistest.Require(t)
	cfg := testConfig(t, "REDIS=sentinel", "REDIS_SERVER=")
	if _, err := cfg.Stages(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cfg.RunDir); err != nil || len(entries) > 0 {
		t.Errorf("computing the layout wrote files: %v %v", entries, err)
	}
	conf := cfg.File("sentinel/sentinel-2/" + sentinelConf)
	if err := configure(conf, "sentinel monitor posts 127.0.0.1 1234 2\nsentinel config-epoch posts 7\n", "secret"); err != nil {
		t.Fatal(err)
	}
	if err := configure(conf, "sentinel monitor posts 127.0.0.1 1 2\n", "secret"); err != nil { // as a restart does
		t.Fatal(err)
	}
	_, err := cfg.Stages()
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1234: set REDIS_PORT as it was") {
		t.Errorf("error %v", err)
	}
}

// The arguments that the supervisor gives: Redis hides its own from ps only once it runs.
func TestNoPasswordInArguments(t *testing.T) {
	redistest.Require(t)
	for _, layout := range []string{Single, WithSentinel, Cluster} {
		for _, server := range []string{Embedded, defaultServer} {
			if layout != Single && server == Embedded {
				continue
			}
			cfg := testConfig(t, "REDIS="+layout, "REDIS_SERVER="+server)
			cfg.Password = "keep-it-secret"
			stages, err := cfg.Stages()
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range stages {
				for _, sp := range st.Specs {
					argv := sp.Argv
					var err error
					if sp.Prepare != nil {
						var more []string
						more, err = sp.Prepare(t.Context())
						argv = append(slices.Clone(argv), more...)
					}
					if err != nil || strings.Contains(strings.Join(argv, " "), cfg.Password) {
						t.Errorf("%s, %s: %s is started as %q (%v)", layout, server, sp.Name, argv, err)
					}
				}
			}
		}
	}
}

func TestConfigure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sentinel-1", sentinelConf)
	for _, password := range []string{"first", "second"} {
		if err := configure(path, "port 1", password, "requirepass %q", "sentinel auth-pass posts %q"); err != nil {
			t.Fatal(err)
		}
		want := "port 1\nrequirepass \"" + password + "\"\nsentinel auth-pass posts \"" + password + "\"\n"
		if text, err := os.ReadFile(path); string(text) != want {
			t.Errorf("%q, want %q (%v)", text, want, err)
		}
		// As Redis leaves it.
		rewritten := "port 1\nuser default on #5e884898 ~* &* +@all\nrequirepass \"" + password + "\"\nsentinel auth-pass posts " + password
		if err := os.WriteFile(path, []byte(rewritten), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A process on the port of the stack's Redis that refuses its password is another Redis.
func TestCheckRedisLogsIn(t *testing.T) {
	embedded := redistest.StartEmbeddedWithPassword(t, "right")
	for password, ready := range map[string]bool{"right": true, "wrong": false, "": true} {
		if h := checkRedis([]string{embedded.Addr()}, password)(t.Context()); h.Ready != ready {
			t.Errorf("with the password %q: %+v, want ready %t", password, h, ready)
		}
	}
}
