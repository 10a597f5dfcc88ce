package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/workload"
)

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// orSkip skips the test when a program is not installed.
func orSkip(t *testing.T) func(*Process, error) *Process {
	t.Helper()
	return func(p *Process, err error) *Process {
		t.Helper()
		if errors.Is(err, ErrNoPeer) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

var answer = Answer{`{"id":"x","content":"{braces}; and # signs","hash":"1"}`, `"etag"`, "1-2"}

func get(t *testing.T, addr string) *http.Response {
	t.Helper()
	res, err := http.Get("http://" + addr + "/post?id=whatever")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// Every peer answers with the body and headers of the post, directly or as a proxy.
func TestPeers(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *Lab) *Process{
		"nginx":   func(t *testing.T, l *Lab) *Process { return orSkip(t)(l.Nginx(t.Context(), answer, "")) },
		"nethttp": func(t *testing.T, l *Lab) *Process { return orSkip(t)(l.NetHTTP(t.Context(), answer, "")) },
		"nginx as proxy": func(t *testing.T, l *Lab) *Process {
			return orSkip(t)(l.NginxProxy(t.Context(), orSkip(t)(l.NetHTTP(t.Context(), answer, "")).Addr, ""))
		},
		"haproxy": func(t *testing.T, l *Lab) *Process {
			return orSkip(t)(l.HAProxy(t.Context(), orSkip(t)(l.NetHTTP(t.Context(), answer, "")).Addr, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			p := start(t, l)
			res := get(t, p.Addr)
			got, err := io.ReadAll(res.Body)
			if err != nil || string(got) != answer.Body || res.Header.Get("ETag") != answer.ETag || res.Header.Get("X-Version") != answer.Version {
				t.Errorf("got %s %v (%v)", got, res.Header, err)
			}
			if name != "nethttp" && p.Version == "" {
				t.Error("the version is unknown")
			}
			if cpu, ok := p.CPU(); runtime.GOOS == "linux" && (!ok || cpu > time.Minute) {
				t.Errorf("CPU time %v, %v", cpu, ok)
			}
			l.Close()
			if conn, err := net.Dial("tcp", p.Addr); err == nil {
				_ = conn.Close()
				t.Error("it still listens after Close")
			}
			if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its folder still exists: %v", err)
			}
		})
	}
}

// A process that ignores SIGTERM is killed with its children. The error of a process that exits at once contains
// its output.
func TestProcess(t *testing.T) {
	l := newLab(t)
	p, err := l.start(program{name: "stubborn", addr: "127.0.0.1:1", path: "/bin/sh", args: []string{"-c", `trap "" TERM; sleep 1000 & echo $!; wait; wait`}})
	if err != nil {
		t.Fatal(err)
	}
	var child string
	eventually.Nil(t, func() error {
		text, err := p.Log()
		if child = strings.TrimSpace(string(text)); err == nil && child == "" {
			err = errors.New("it has printed nothing")
		}
		return err
	})
	p.Stop()
	if err := syscall.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still running: %v", err)
	}
	eventually.Nil(t, func() error {
		if state, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && !bytes.Contains(state, []byte(") Z ")) {
			return fmt.Errorf("its child is still running: %s", state)
		}
		return nil
	})

	p, err = l.start(program{name: "short", addr: "127.0.0.1:1", path: "/bin/sh", args: []string{"-c", "echo why; exit 1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.await(t.Context(), p.listens); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("got %v, want the output of the process", err)
	}
}

// A pinned process runs only on its core, and Pin moves it.
func TestPin(t *testing.T) {
	l := newLab(t)
	separate, ok := l.SeparateCores()
	if !ok {
		t.Skip("needs two cores and taskset")
	}
	p, err := l.start(program{name: "sleep", cores: separate.Server, path: "/bin/sleep", args: []string{"100"}})
	if err != nil {
		t.Fatal(err)
	}
	allowed := func() string {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
		for line := range strings.Lines(string(text)) {
			if after, found := strings.CutPrefix(line, "Cpus_allowed_list:"); found {
				return strings.TrimSpace(after)
			}
		}
		return ""
	}
	eventually.Nil(t, func() error { // until taskset has pinned itself
		if got := allowed(); got != separate.Server {
			return fmt.Errorf("the process runs on the cores %s, want %s", got, separate.Server)
		}
		return nil
	})
	if err := p.Pin(t.Context(), separate.Clients); err != nil || allowed() != separate.Clients {
		t.Errorf("after Pin it runs on %s (%v), want %s", allowed(), err, separate.Clients)
	}
}

// The lab's writer accepts an import and updates, and its reader serves them.
func TestUpstream(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip(ErrNoRedis)
	}
	ctx, l := t.Context(), newLab(t)
	u, err := l.Upstream(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	const posts = 500
	var lines bytes.Buffer
	for rank := range posts {
		line, err := workload.AppendLine(nil, workload.Post(rank, 0))
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(line)
	}
	if n, err := Import(ctx, u.Writer.Addr, "", &lines); err != nil || n != posts {
		t.Fatalf("%d posts were imported (%v), want %d", n, err, posts)
	}
	if n, err := Scan(ctx, u.Redis.Addr); err != nil || n != posts {
		t.Errorf("%d values were scanned (%v), want %d", n, err, posts)
	}
	r, err := l.Reader(ctx, u, "", true)
	if err != nil {
		t.Fatal(err)
	}
	held, err := Idle(ctx, r.Addr, "/post?id=post-7", 20)
	if err != nil || len(held) != 20 {
		t.Errorf("%d connections are idle (%v), want 20", len(held), err)
	}
	for _, c := range held {
		_ = c.Close()
	}
	g, err := l.Gateway(ctx, r.Addr, "")
	if err != nil {
		t.Fatal(err)
	}
	if res, err := http.Get("http://" + g.Addr + "/post?id=post-7"); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("through the gateway: %v (%v)", res, err)
	}
	update := Updates{Writer: u.Writer.Addr, Posts: posts, Rate: 200, Duration: 200 * time.Millisecond}
	for name, run := range map[string]func(context.Context) (int, error){"single": update.Run, "bulk": update.RunBulk} {
		if n, err := run(ctx); err != nil || n < 1 || n > 40 {
			t.Errorf("%s: %d updates (%v), want up to 40", name, n, err)
		}
	}
	if m, err := r.Memory(); runtime.GOOS == "linux" && (err != nil || m.Now < 1<<20 || m.Peak < m.Now) {
		t.Errorf("memory: %+v (%v)", m, err)
	}
	u.Redis.Stop()
	if _, err := update.Run(ctx); err == nil {
		t.Error("updates without Redis succeeded")
	}
}

func TestParseMemory(t *testing.T) {
	m, err := parseMemory("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
	if err != nil || m != (Memory{Now: 1 << 20, Peak: 2 << 20}) {
		t.Errorf("got %+v (%v)", m, err)
	}
	for _, bad := range []string{"", "VmRSS:\t1 kB\n", "VmRSS:\tx kB\nVmHWM:\t1 kB\n"} {
		if _, err := parseMemory(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseCollections(t *testing.T) {
	c := ParseCollections([]byte("a log line\ngc 7 @3.1s 1%: 0.05+8.1+0.02 ms clock, 0.5+1/2/3+0.5 ms cpu, 4->4->2 MB\ngc broken\ngc 8 @4s 1%: 1+2+3 ms clock, 1+0/0/0+1 ms cpu, 4->4->2 MB\n"))
	slices.Sort(c.Pauses)
	want := []time.Duration{20 * time.Microsecond, 50 * time.Microsecond, time.Millisecond, 3 * time.Millisecond}
	if c.Count != 2 || c.CPU != 9*time.Millisecond || !slices.Equal(c.Pauses, want) {
		t.Errorf("got %+v", c)
	}
}

func TestQuotable(t *testing.T) {
	for _, bad := range []string{`it's`, `5 $ each`, `a\nb`} {
		if Quotable(bad) {
			t.Errorf("%q is quotable", bad)
		}
		if _, err := newLab(t).Nginx(t.Context(), Answer{Body: bad}, ""); err == nil {
			t.Errorf("nginx was started with %q", bad)
		}
	}
	if !Quotable(`{"a":"b, c; {d} #e"}`) {
		t.Error("a JSON object is not quotable")
	}
}
