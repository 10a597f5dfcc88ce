package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// wellState waits until everything is as it should be and returns the state.
func wellState(t *testing.T, cfg Config) State {
	t.Helper()
	var st State
	eventually.Nil(t, func() (err error) {
		st, err = getState(t.Context(), address(cfg.Port))
		if err == nil && !st.settled() {
			err = errors.New(st.missingText())
		}
		return err
	})
	return st
}

// primaryOf returns the name of the server that has the posts.
func primaryOf(st State) string {
	for _, p := range st.Processes {
		if p.Role == roleRedis && strings.HasPrefix(p.Note, "primary") && (st.Redis.Layout == redisSentinel || strings.Contains(p.Note, "of the posts")) {
			return p.Name
		}
	}
	return ""
}

func doHTTP(ctx context.Context, method, url, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, string(text), err
}

// write writes a post with the id, again and again until the writer takes it.
func write(t *testing.T, cfg Config, id string) {
	t.Helper()
	eventually.Nil(t, func() error {
		status, body, err := doHTTP(t.Context(), http.MethodPost, "http://"+address(cfg.WriterPort)+"/create", fmt.Sprintf(`{"id":%q,"title":"t","content":"c"}`, id))
		if err == nil && status != http.StatusCreated && status != http.StatusOK {
			err = fmt.Errorf("the writer answers %d: %s", status, body)
		}
		return err
	})
}

// served waits until a reader answers with each of the posts.
func served(t *testing.T, cfg Config, ids ...string) {
	t.Helper()
	for _, id := range ids {
		eventually.Nil(t, func() error {
			status, body, err := doHTTP(t.Context(), http.MethodGet, "http://"+address(cfg.DirectPort)+"/post?id="+id, "")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("post %s: the reader answers %d: %s", id, status, body)
			}
			return err
		})
	}
}

// checkModes reports files of the run folder that another user may look at.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // renamed meanwhile
		} else if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		files++
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files and folders in %s: %v", files, dir, err)
	}
}

// Both layouts go through the same life: start, death of the primary, failover, stop and start.
func TestLayouts(t *testing.T) {
	redistest.Require(t)
	for _, tt := range []struct {
		layout    string
		processes int // of Redis
	}{
		{redisSentinel, sentinelServers + sentinels},
		{redisCluster, clusterNodes},
	} {
		t.Run(tt.layout, func(t *testing.T) {
			t.Parallel()
			env := append(testEnv(t), childEnvironment+"="+realChildren, "REDIS_SERVER=", "READERS=1")
			first := append(slices.Clone(env), "REDIS="+tt.layout) // later starts remember it
			cfg, err := ParseConfig(nil, func(name string) string { return lookup(env, name) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { local(t, env, "stop") })
			start := func(env []string) State {
				t.Helper()
				if out, code := local(t, env, "start"); code != 0 {
					t.Fatalf("start: exit code %d\n%s", code, out)
				}
				return wellState(t, cfg)
			}
			st := start(first)
			if n := len(st.Processes); n != tt.processes+4 {
				t.Errorf("%d processes run: %+v", n, st.Processes)
			}
			write(t, cfg, "first")
			checkModes(t, cfg.RunDir)
			checkGuarded(t, cfg, st)

			old := primaryOf(st)
			if err := syscall.Kill(find(t, st, old).PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			write(t, cfg, "second")
			eventually.Nil(t, func() error {
				st = wellState(t, cfg)
				if p := find(t, st, old); p.Restarts != 1 || p.Note != "replica of "+primaryOf(st)+", link up" {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})

			before := primaryOf(st)
			out, code := local(t, env, "failover")
			if code != 0 || !strings.Contains(out, "none was lost") {
				t.Errorf("failover: exit code %d\n%s", code, out)
			}
			write(t, cfg, "third")
			st = wellState(t, cfg)
			now := primaryOf(st)
			if now == before || !strings.Contains(out, now+" is the primary") {
				t.Errorf("the primary was %s and is %s\n%s", before, now, out)
			}
			out, code = local(t, env, "status")
			if want := "ready, " + find(t, st, now).Note; code != 0 || !strings.Contains(out, want) {
				t.Errorf("status: exit code %d, %q is not in\n%s", code, want, out)
			}

			// The posts and the primary survive a stop in order, and one that leaves nobody time.
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				if err := syscall.Kill(st.PID, signal); err != nil {
					t.Fatal(err)
				}
				for _, p := range st.Processes {
					eventually.True(t, "end of "+p.Name, func() bool { return gone(p.PID) })
				}
				eventually.True(t, "a free run folder", func() bool { pid, _, err := running(cfg); return err == nil && pid == 0 })
				st = start(env)
				if got := primaryOf(st); got != now {
					t.Errorf("after %v the primary is %s, it was %s", signal, got, now)
				}
				served(t, cfg, "first", "second", "third")
			}

			// And the first start of this version in a run folder whose Redis had no password.
			if out, code := local(t, env, "stop"); code != 0 {
				t.Fatalf("stop: exit code %d\n%s", code, out)
			}
			withoutPassword(t, cfg)
			st = start(env)
			if got := primaryOf(st); got != now {
				t.Errorf("after an earlier version the primary is %s, it was %s", got, now)
			}
			served(t, cfg, "first", "second", "third")
			write(t, cfg, "fourth")
			checkGuarded(t, cfg, st)
		})
	}
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
				"redis-1": "ready, primary, 2 replicas: ", "redis-2": "ready, replica of redis-1, link up: ",
				"sentinel-1": "ready, 2 of 2 agree on redis-1: ",
			},
		},
		{
			"the link of a Redis replica is down",
			[]serverView{primary, server("redis-2", serverView{upstream: "redis-1:1"})}, []sentinelView{s1, s2},
			map[string]string{"redis-2": "degraded, replica of redis-1: the link is down"},
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
				"sentinel-1": "not ready, 1 of 2 agree on redis-1: no quorum: most Sentinels are silent or name another primary",
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
			map[string]string{"sentinel-1": "degraded, 2 of 2 agree on redis-1: it reaches no Redis replica that it could promote"},
		},
		{
			"an old primary and an old opinion",
			[]serverView{primary, server("redis-2", serverView{primary: true, good: 1, required: 1, replicas: 1}), server("redis-3", serverView{upstream: "redis-1:1", linkUp: true})},
			[]sentinelView{s1, sentinel("sentinel-2", "redis-2", 2, sentinelView{}), sentinel("sentinel-3", "redis-2", 2, sentinelView{})},
			map[string]string{
				"redis-1":    "degraded, primary, 2 replicas: the Sentinels name redis-2",
				"redis-2":    "ready, primary, 1 replica: ",
				"redis-3":    "degraded, replica of redis-1, link up: the Sentinels name redis-2",
				"sentinel-1": "degraded, 2 of 3 agree on redis-2: it still names redis-1",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := sentinelLook{servers: tt.servers, sentinels: tt.sentinels}
			l.settle()
			got := make(map[string]string)
			note := func(name string, h health) {
				var p dashboard.Process
				setHealth(&p, h)
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

func TestLayoutNeedsARedisServer(t *testing.T) {
	for _, server := range []string{redisEmbedded, ""} {
		cfg := testConfig(t, "REDIS=sentinel", "REDIS_SERVER="+server)
		t.Setenv("PATH", t.TempDir())
		err := runToEnd(t, cfg)
		if err == nil || !strings.Contains(err.Error(), "REDIS=sentinel needs a real redis-server") {
			t.Errorf("REDIS_SERVER=%s: error %v", server, err)
		}
	}
}

// A start with other ports would follow a primary that is not there. It must not leave anything behind
// either, so that the ports can still be chosen after a first start that failed.
func TestSentinelsKeepTheirPorts(t *testing.T) {
	redistest.Require(t)
	cfg := testConfig(t, "REDIS=sentinel", "REDIS_SERVER=")
	if _, err := (&stack{cfg: cfg, log: cfg.Logger}).layout(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cfg.RunDir); err != nil || len(entries) > 0 {
		t.Errorf("the layout alone wrote files: %v %v", entries, err)
	}
	conf := cfg.file("sentinel/sentinel-2/" + sentinelConf)
	if err := configure(conf, "sentinel monitor posts 127.0.0.1 1234 2\nsentinel config-epoch posts 7\n", "secret"); err != nil {
		t.Fatal(err)
	}
	if err := configure(conf, "sentinel monitor posts 127.0.0.1 1 2\n", "secret"); err != nil { // what a restart does
		t.Fatal(err)
	}
	_, err := (&stack{cfg: cfg, log: cfg.Logger}).layout()
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1234: set REDIS_PORT as it was") {
		t.Errorf("error %v", err)
	}
}

func TestFailoverOfASingleRedis(t *testing.T) {
	env := testEnv(t)
	t.Cleanup(func() { local(t, env, "stop") })
	if out, code := local(t, env, "failover"); code != 1 || !strings.Contains(out, "the stack is not running") {
		t.Errorf("without a stack: exit code %d\n%s", code, out)
	}
	if out, code := local(t, env, "start"); code != 0 {
		t.Fatalf("start: exit code %d\n%s", code, out)
	}
	const want = "error: there is nothing to fail over to: this is a single Redis; REDIS=sentinel or REDIS=cluster start several\n"
	if out, code := local(t, env, "failover"); code != 1 || out != want {
		t.Errorf("exit code %d, %q", code, out)
	}
}
