package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func set(t *testing.T, c redis.Cmdable, key, value string) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, 0).Err(); err != nil {
		t.Fatalf("set %s: %v", key, err)
	}
}

func wantValue(t *testing.T, c redis.Cmdable, key, want string) {
	t.Helper()
	got, err := c.Get(t.Context(), key).Result()
	if err != nil || got != want {
		t.Fatalf("get %s: %q, %v; want %q", key, got, err, want)
	}
}

func TestEach(t *testing.T) {
	Each(t, func(t *testing.T, b Backend) {
		if want := strings.TrimPrefix(t.Name(), "TestEach/"); b.Name() != want || b.Real() != (want == "redis") {
			t.Errorf("got backend %q, real %v in subtest %q", b.Name(), b.Real(), want)
		}
		c := b.Client(t)
		if c.Options().Addr != b.Addr() {
			t.Errorf("client of %s, backend at %s", c.Options().Addr, b.Addr())
		}
		set(t, c, "k", "v")
		wantValue(t, c, "k", "v")
	})
}

func TestEmbeddedKeepsItsAddress(t *testing.T) {
	e := StartEmbedded(t)
	addr := e.Addr()
	e.Close()
	if e.Addr() != addr {
		t.Errorf("closed: address %q, want %q", e.Addr(), addr)
	}
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	if e.Miniredis.Addr() != addr {
		t.Errorf("restarted on %s, want %s", e.Miniredis.Addr(), addr)
	}
}

func TestRestartKeepsAddressAndEveryWrite(t *testing.T) {
	Require(t)
	s := Start(t)
	for name, end := range map[string]func(){"Kill": s.Kill, "Stop": s.Stop, "only Restart": func() {}} {
		t.Run(name, func(t *testing.T) {
			c := s.Client(t)
			addr, pid := s.Addr(), s.PID()
			set(t, c, name, "v")
			end()
			s.Restart()
			if s.Addr() != addr || s.PID() == pid {
				t.Errorf("%s pid %d before, %s pid %d after", addr, pid, s.Addr(), s.PID())
			}
			wantValue(t, s.Client(t), name, "v")
		})
	}
}

func TestRestartKeepsWhatRedisWroteIntoItsConfig(t *testing.T) {
	Require(t)
	s := Start(t)
	c := s.Client(t)
	if err := errors.Join(c.ConfigSet(t.Context(), "maxmemory", "64mb").Err(), c.ConfigRewrite(t.Context()).Err()); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	if got := c.ConfigGet(t.Context(), "maxmemory").Val()["maxmemory"]; got != "67108864" {
		t.Errorf("maxmemory is %q, want the rewritten value", got)
	}
}

func TestKilledServerIsGone(t *testing.T) {
	Require(t)
	s := Start(t)
	s.Kill()
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Error("a killed server accepts connections")
	}
	s.Kill() // no effect
}

func TestDefaultsAndConfig(t *testing.T) {
	Require(t)
	s := Start(t, Config("maxmemory 64mb", "appendfsync everysec"))
	c := s.Client(t)
	for name, want := range map[string]string{
		"appendonly": "yes", "save": "", "maxmemory": "67108864",
		"appendfsync": "everysec", // the option overrides the default
		"bind":        "127.0.0.1",
	} {
		if got := c.ConfigGet(t.Context(), name).Val()[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	fsync := Start(t).Client(t).ConfigGet(t.Context(), "appendfsync").Val()["appendfsync"]
	if fsync != "always" {
		t.Errorf("appendfsync is %q by default, want always", fsync)
	}
}

func TestPauseAndResume(t *testing.T) {
	Require(t)
	s := Start(t)
	c := s.Client(t)
	set(t, c, "k", "v")
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := c.Get(ctx, "k").Err(); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Errorf("get from a paused server: %v, want a timeout", err)
	}
	s.Resume()
	wantValue(t, c, "k", "v")

	s.Pause()
	s.Stop() // must also stop a paused server
	s.Restart()
	wantValue(t, s.Client(t), "k", "v")
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

func TestParallelStartsGetDistinctPorts(t *testing.T) {
	Require(t)
	const n = 8
	var mu sync.Mutex
	seen := map[string]bool{}
	t.Run("group", func(t *testing.T) {
		for i := range n {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				s := Start(t)
				s.Kill() // the port of a server that is down must stay reserved
				mu.Lock()
				seen[s.Addr()] = true
				mu.Unlock()
				other := Start(t)
				s.Restart()
				if other.Addr() == s.Addr() {
					t.Errorf("two servers on %s", s.Addr())
				}
			})
		}
	})
	if len(seen) == 0 {
		t.Error("no server was started")
	}
}

func TestReservedPortIsNotGivenTwice(t *testing.T) {
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	if c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p.number)); err == nil {
		_ = c.Close()
		t.Errorf("port %d can be reserved again", p.number)
	}
}

func TestTakenPortIsRecognized(t *testing.T) {
	Require(t)
	other := Start(t)
	s := &Server{t: t, dir: t.TempDir(), port: port{number: other.Port()}}
	if err := s.writeConfig(); err != nil {
		t.Fatal(err)
	}
	if err := s.launch(); !errors.Is(err, errPortTaken) {
		t.Errorf("start on a port in use: %v, want %v", err, errPortTaken)
	}
}

func TestBadConfigIsReportedWithTheLog(t *testing.T) {
	Require(t)
	s := &Server{t: t, dir: t.TempDir(), port: port{number: firstPort}, opts: options{config: []string{"no-such-directive 1"}}}
	if err := s.writeConfig(); err != nil {
		t.Fatal(err)
	}
	err := s.launch()
	if err == nil || errors.Is(err, errPortTaken) || !strings.Contains(err.Error(), "no-such-directive") {
		t.Errorf("got %v, want an error that quotes redis-server's log", err)
	}
}

// failedTest is a failed testing.TB whose Cleanup functions run when the test calls them.
type failedTest struct {
	testing.TB
	cleanups []func()
	log      strings.Builder
}

func (f *failedTest) Failed() bool               { return true }
func (f *failedTest) Cleanup(c func())           { f.cleanups = append(f.cleanups, c) }
func (f *failedTest) Logf(s string, args ...any) { fmt.Fprintf(&f.log, s, args...) }

func TestFailedTestShowsTheLog(t *testing.T) {
	Require(t)
	f := &failedTest{TB: t}
	s := Start(f)
	for _, c := range f.cleanups {
		c()
	}
	if log := f.log.String(); !strings.Contains(log, s.Addr()) || !strings.Contains(log, "Ready to accept connections") {
		t.Errorf("a failed test printed %q, want the server's log", log)
	}
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = conn.Close()
		t.Error("the server outlived its test")
	}
}

func TestReplication(t *testing.T) {
	Require(t)
	primary := Start(t)
	c := primary.Client(t)
	set(t, c, "old", "1")
	replica := Start(t, ReplicaOf(primary))
	replica.WaitReplicaOnline()
	for i := range 100 {
		set(t, c, "new", fmt.Sprint(i))
	}
	replica.WaitReplicaInSync(primary)
	r := replica.Client(t)
	wantValue(t, r, "old", "1")
	wantValue(t, r, "new", "99")
	if err := r.Set(t.Context(), "x", "1", 0).Err(); err == nil {
		t.Error("a replica accepted a write")
	}

	replica.Promote()
	set(t, r, "new", "own")
	replica.Restart()
	r = replica.Client(t)
	wantValue(t, r, "new", "own")
	set(t, r, "x", "1") // still a primary

	replica.ReplicaOf(primary)
	replica.WaitReplicaInSync(primary)
	wantValue(t, r, "new", "99")
	replica.Restart()
	replica.WaitReplicaInSync(primary) // still a replica
}

func TestCluster(t *testing.T) {
	Require(t)
	s := Start(t, Cluster())
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.Addr()}})
	defer func() { _ = c.Close() }()
	for i := range 50 {
		set(t, c, fmt.Sprintf("{%d}", i), "v")
	}
	s.Restart()
	for i := range 50 {
		wantValue(t, c, fmt.Sprintf("{%d}", i), "v")
	}
}

func TestPasswordAndUser(t *testing.T) {
	Require(t)
	s := Start(t, Password("secret"), User("reader", "pw", "~posts:* &* +@read"))
	set(t, s.Client(t), "posts:1", "v")

	stranger := newClient(t, clientOptions(s.Addr(), ""))
	if err := stranger.Ping(t.Context()).Err(); err == nil {
		t.Error("answered without a password")
	}
	o := clientOptions(s.Addr(), "pw")
	o.Username = "reader"
	reader := newClient(t, o)
	wantValue(t, reader, "posts:1", "v")
	if err := reader.Set(t.Context(), "posts:1", "w", 0).Err(); err == nil {
		t.Error("a read-only user wrote")
	}

	replica := Start(t, Password("secret"), ReplicaOf(s))
	replica.WaitReplicaInSync(s)
	wantValue(t, replica.Client(t), "posts:1", "v")
}

func TestFreePortIsKeptUntilTheEnd(t *testing.T) {
	n := FreePort(t)
	if again, err := net.ListenPacket("udp", localAddr(n)); err == nil {
		_ = again.Close()
		t.Errorf("port %d is not reserved", n)
	}
	if n < firstPort || n >= firstPort+numPorts {
		t.Errorf("port %d is in the ephemeral range", n)
	}
}
