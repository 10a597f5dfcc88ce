package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/proctest"
	"heavy-read-api/internal/test/redistest"
)

// wellState waits until the stack is settled and returns the state.
func wellState(t *testing.T, cfg layout.Config) state.Stack {
	t.Helper()
	var st state.Stack
	eventually.Nil(t, func() (err error) {
		st, err = control.State(t.Context(), supervisor.Address(cfg.Port))
		if err == nil && !st.Settled() {
			err = errors.New(st.MissingText())
		}
		return err
	})
	return st
}

// primaryOf returns the name of the server that has the posts.
func primaryOf(st state.Stack) string {
	for _, p := range st.Processes {
		if p.Role == state.Redis && strings.HasPrefix(p.Note, "primary") && (st.Redis.Layout == layout.WithSentinel || strings.Contains(p.Note, "of the posts")) {
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

// write writes a post with the id, and retries until the writer takes it.
func write(t *testing.T, cfg layout.Config, id string) {
	t.Helper()
	eventually.Nil(t, func() error {
		status, body, err := doHTTP(t.Context(), http.MethodPost, "http://"+supervisor.Address(cfg.WriterPort)+"/create", fmt.Sprintf(`{"id":%q,"title":"t","content":"c"}`, id))
		if err == nil && status != http.StatusCreated && status != http.StatusOK {
			err = fmt.Errorf("the writer answers %d: %s", status, body)
		}
		return err
	})
}

// served waits until reader-direct serves each of the posts.
func served(t *testing.T, cfg layout.Config, ids ...string) {
	t.Helper()
	for _, id := range ids {
		eventually.Nil(t, func() error {
			status, body, err := doHTTP(t.Context(), http.MethodGet, "http://"+supervisor.Address(cfg.DirectPort)+"/post?id="+id, "")
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("post %s: the reader answers %d: %s", id, status, body)
			}
			return err
		})
	}
}

// checkModes reports files of the run folder that another user may read.
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

// Both layouts pass through the same events: start, death of the primary, failover, stop and start.
func TestLayouts(t *testing.T) {
	redistest.Require(t)
	for _, tt := range []struct {
		layout    string
		processes int // number of Redis processes
	}{
		{layout.WithSentinel, sentinelServers + sentinels},
		{layout.Cluster, clusterNodes},
	} {
		t.Run(tt.layout, func(t *testing.T) {
			t.Parallel()
			env := append(testEnv(t), childEnvironment+"="+realChildren, "REDIS_SERVER=", "READERS=1")
			first := append(slices.Clone(env), "REDIS="+tt.layout) // later starts remember it
			cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { local(t, env, "stop") })
			start := func(env []string) state.Stack {
				t.Helper()
				if out, code := local(t, env, "start"); code != 0 {
					t.Fatalf("start: exit code %d\n%s", code, out)
				}
				return wellState(t, cfg)
			}
			st := start(first)
			if n := len(st.Processes); n != tt.processes+5 {
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
				if p := find(t, st, old); p.Restarts != 1 || p.Note != "Redis replica of "+primaryOf(st)+", link up" {
					return fmt.Errorf("%+v", p)
				}
				return nil
			})

			before := primaryOf(st)
			out, code := local(t, env, "failover")
			if code != 0 || !strings.Contains(out, "none was lost") {
				t.Errorf("failover: exit code %d\n%s", code, out)
			}
			if out, code := local(t, env, "health"); code != 0 || strings.Contains(out, "degraded") {
				t.Errorf("just after the failover: exit code %d\n%s", code, out)
			}
			write(t, cfg, "third")
			st = wellState(t, cfg)
			now := primaryOf(st)
			if now == before || !strings.Contains(out, now+" is the primary") {
				t.Errorf("the primary was %s and is %s\n%s", before, now, out)
			}
			out, code = local(t, env, "health")
			if want := "ready, " + find(t, st, now).Note; code != 0 || !strings.Contains(out, want) {
				t.Errorf("status: exit code %d, %q is not in\n%s", code, want, out)
			}

			// The posts and the primary survive a graceful stop, and a kill of all processes.
			for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
				if err := syscall.Kill(st.PID, signal); err != nil {
					t.Fatal(err)
				}
				for _, p := range st.Processes {
					eventually.True(t, "end of "+p.Name, func() bool { return proctest.Gone(p.PID) })
				}
				eventually.True(t, "a free run folder", func() bool { pid, _, err := rundir.Running(cfg.RunDir); return err == nil && pid == 0 })
				st = start(env)
				if got := primaryOf(st); got != now {
					t.Errorf("after %v the primary is %s, it was %s", signal, got, now)
				}
				served(t, cfg, "first", "second", "third")
			}

			// They also survive the first start of this version in a run folder whose Redis had no password.
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

func TestLayoutNeedsARedisServer(t *testing.T) {
	for _, server := range []string{layout.Embedded, ""} {
		cfg := testConfig(t, "REDIS=sentinel", "REDIS_SERVER="+server)
		t.Setenv("PATH", t.TempDir())
		want := "REDIS=sentinel needs a real redis-server, and there is none on PATH"
		if server != "" {
			want = "REDIS=sentinel needs a real redis-server: the embedded Redis (REDIS_SERVER=embedded) has no replication"
		}
		if err := runToEnd(t, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("REDIS_SERVER=%s: error %v, want %q", server, err, want)
		}
	}
}

func TestFailoverOfASingleRedis(t *testing.T) {
	t.Parallel()
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
