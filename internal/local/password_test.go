package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/test/redistest"
)

// checkGuarded reports a process of the stack's own Redis that answers without the password, and a process
// whose arguments, which every user can read, have it.
func checkGuarded(t *testing.T, cfg layout.Config, st state.Stack) {
	t.Helper()
	path := cfg.File(layout.PasswordFile)
	password, err := layout.ReadPassword(path)
	if err != nil || len(password) < 20 {
		t.Fatalf("the password is %q: %v", password, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the file of the password has mode %v", info.Mode())
	}
	for _, p := range st.Processes {
		args, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
		if goruntime.GOOS == "linux" && (err != nil || len(args) == 0 || strings.Contains(string(args), password)) {
			t.Errorf("arguments of %s: %q %v", p.Name, args, err)
		}
		if p.Role != state.Redis && p.Role != state.Sentinel {
			continue
		}
		for given, refused := range map[string]string{"": "NOAUTH", "wrong": "WRONGPASS", password: ""} {
			c := redis.NewClient(&redis.Options{Addr: p.Address, Password: given, Protocol: 2, MaxRetries: -1})
			err := c.Ping(t.Context()).Err()
			c.Close()
			if refused == "" && err != nil || refused != "" && !redis.HasErrorPrefix(err, refused) {
				t.Errorf("%s with the password %q: %v, want %s", p.Name, given, err, refused)
			}
		}
	}
}

// withoutPassword turns the run folder of a stopped stack into one of an earlier version, which set no password:
// the files that Redis rewrites say that the default user needs none.
func withoutPassword(t *testing.T, cfg layout.Config) {
	t.Helper()
	if err := os.Remove(cfg.File(layout.PasswordFile)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(cfg.RunDir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.Name() != "redis.conf" && d.Name() != "sentinel.conf":
			return err
		case !strings.HasPrefix(path, cfg.File("sentinel")): // there was none
			return os.Remove(path)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		old := "user default on nopass sanitize-payload ~* &* +@all\n"
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "requirepass") && !strings.Contains(line, "masterauth") && !strings.Contains(line, "auth-pass") && !strings.HasPrefix(line, "user ") {
				old += line
			}
		}
		return os.WriteFile(path, []byte(old), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSingleRedisIsGuarded(t *testing.T) {
	for _, server := range []string{layout.Embedded, "redis-server"} {
		t.Run(server, func(t *testing.T) {
			real := server != layout.Embedded
			if real {
				redistest.Require(t)
			}
			t.Parallel()
			env := append(testEnv(t), childEnvironment+"="+realChildren, "REDIS_SERVER="+server, "READERS=1")
			cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { local(t, env, "stop") })
			start := func() {
				t.Helper()
				if out, code := local(t, env, "start"); code != 0 {
					t.Fatalf("start: exit code %d\n%s", code, out)
				}
				checkGuarded(t, cfg, wellState(t, cfg))
			}
			start()
			write(t, cfg, "first")
			served(t, cfg, "first")
			password, _ := layout.ReadPassword(cfg.File(layout.PasswordFile))
			for _, earlier := range []bool{false, true} {
				if out, code := local(t, env, "stop"); code != 0 {
					t.Fatalf("stop: exit code %d\n%s", code, out)
				}
				if earlier && real {
					withoutPassword(t, cfg)
				}
				start()
				if real {
					served(t, cfg, "first")
				}
				now, _ := layout.ReadPassword(cfg.File(layout.PasswordFile))
				if again := now == password; again == (earlier && real) {
					t.Errorf("password %s after %s, earlier version: %t", now, password, earlier)
				}
			}
		})
	}
}

// An external Redis has a password of its own, and the run folder gets none.
func TestNoPasswordForAnotherRedis(t *testing.T) {
	t.Parallel()
	embedded := redistest.StartEmbeddedWithPassword(t, "theirs")
	cfg := testConfig(t, "REDIS_ADDR="+embedded.Addr(), "REDIS_PASSWORD=theirs")
	run(t, cfg)
	readyState(t, cfg)
	if _, err := os.Stat(cfg.File(layout.PasswordFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of the password: %v", err)
	}
	if got := layout.Getenv(childEnvOf(t, cfg), "REDIS_PASSWORD"); got != "theirs" {
		t.Errorf("the children get REDIS_PASSWORD=%s", got)
	}
}

// childEnvOf returns the environment that the stack gives the readers.
func childEnvOf(t *testing.T, cfg layout.Config) []string {
	t.Helper()
	s, err := cfg.Reader(1)
	if err != nil {
		t.Fatal(err)
	}
	return s.Env
}
