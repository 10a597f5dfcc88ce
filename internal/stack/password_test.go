package stack

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/test/redistest"
)

// checkGuarded reports a process of the stack's own Redis that answers without the password, and a process
// whose arguments, which every user can read, have it.
func checkGuarded(t *testing.T, cfg Config, st State) {
	t.Helper()
	path := cfg.file(passwordFile)
	password, err := readPassword(path)
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
		if runtime.GOOS == "linux" && (err != nil || len(args) == 0 || strings.Contains(string(args), password)) {
			t.Errorf("arguments of %s: %q %v", p.Name, args, err)
		}
		if p.Role != roleRedis && p.Role != roleSentinel {
			continue
		}
		for given, refused := range map[string]string{"": "NOAUTH", "wrong": "WRONGPASS", password: ""} {
			c := redisClient(p.Address, given)
			err := c.Ping(t.Context()).Err()
			c.Close()
			if refused == "" && err != nil || refused != "" && !redis.HasErrorPrefix(err, refused) {
				t.Errorf("%s with the password %q: %v, want %s", p.Name, given, err, refused)
			}
		}
	}
}

// withoutPassword makes the run folder of a stack that was stopped one of a version that knew no password.
// Redis had written into the files that it rewrites that the default user needs none.
func withoutPassword(t *testing.T, cfg Config) {
	t.Helper()
	if err := os.Remove(cfg.file(passwordFile)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(cfg.RunDir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.Name() != "redis.conf" && d.Name() != sentinelConf:
			return err
		case !strings.HasPrefix(path, cfg.file(redisDirs[redisSentinel])): // there was none
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
	for _, server := range []string{redisEmbedded, redisDefault} {
		t.Run(server, func(t *testing.T) {
			real := server != redisEmbedded
			if real {
				redistest.Require(t)
			}
			t.Parallel()
			env := append(testEnv(t), childEnvironment+"="+realChildren, "REDIS_SERVER="+server, "READERS=1")
			cfg, err := ParseConfig(nil, func(name string) string { return lookup(env, name) })
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
			password, _ := readPassword(cfg.file(passwordFile))
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
				now, _ := readPassword(cfg.file(passwordFile))
				if again := now == password; again == (earlier && real) {
					t.Errorf("password %s after %s, earlier version: %t", now, password, earlier)
				}
			}
		})
	}
}

// A Redis of the user's keeps its own password, and the run folder gets none.
func TestNoPasswordForAnotherRedis(t *testing.T) {
	embedded := redistest.StartEmbedded(t)
	embedded.RequireAuth("theirs")
	cfg := testConfig(t, "REDIS_ADDR="+embedded.Addr(), "REDIS_PASSWORD=theirs")
	run(t, cfg)
	readyState(t, cfg)
	if _, err := os.Stat(cfg.file(passwordFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of the password: %v", err)
	}
	if got := getenv(cfg.childEnv(), "REDIS_PASSWORD"); got != "theirs" {
		t.Errorf("the children get REDIS_PASSWORD=%s", got)
	}
}

// The arguments that the supervisor gives: Redis hides its own from ps only once it runs.
func TestNoPasswordInArguments(t *testing.T) {
	redistest.Require(t)
	for _, layout := range []string{redisSingle, redisSentinel, redisCluster} {
		for _, server := range []string{redisEmbedded, redisDefault} {
			if layout != redisSingle && server == redisEmbedded {
				continue
			}
			cfg := testConfig(t, "REDIS="+layout, "REDIS_SERVER="+server)
			cfg.password = "keep-it-secret"
			stages, err := (&stack{cfg: cfg, log: cfg.Logger}).layout()
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range stages {
				for _, sp := range st.specs {
					argv, err := (&process{spec: sp}).arguments()
					if err != nil || strings.Contains(strings.Join(argv, " "), cfg.password) {
						t.Errorf("%s, %s: %s is started as %q (%v)", layout, server, sp.name, argv, err)
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

// What listens on the port of our Redis and does not take our password is not ours.
func TestCheckRedisLogsIn(t *testing.T) {
	embedded := redistest.StartEmbedded(t)
	embedded.RequireAuth("right")
	for password, ready := range map[string]bool{"right": true, "wrong": false, "": true} {
		if h := checkRedis([]string{embedded.Addr()}, password)(t.Context()); h.ready != ready {
			t.Errorf("with the password %q: %+v, want ready %t", password, h, ready)
		}
	}
}
