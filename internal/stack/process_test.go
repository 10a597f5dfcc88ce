package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/dashboard"
	"heavy-read-api/internal/test/eventually"
)

// A child that ignores SIGTERM, and its own child, are killed when their time is up.
func TestStubbornChildIsKilled(t *testing.T) {
	output, err := openLog(filepath.Join(t.TempDir(), "log"), maxLogBytes)
	if err != nil {
		t.Fatal(err)
	}
	starter := newStarter()
	defer starter.close()
	p := &process{
		spec: spec{
			name: "stubborn", path: "/bin/sh", env: os.Environ(), notable: notable,
			argv: []string{"sh", "-c", "trap '' TERM; echo ignoring; while :; do sleep 1; done"},
		},
		starter: starter, grace: 200 * time.Millisecond, log: slog.New(slog.DiscardHandler), output: output, terminal: io.Discard,
		stopping: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	<-p.started
	p.mu.Lock()
	pid := p.pid
	p.mu.Unlock()
	eventually.True(t, "it ignores the signal", func() bool {
		text, _ := os.ReadFile(output.path)
		return string(text) == "stubborn | ignoring\n"
	})
	p.stop()
	select {
	case <-p.done:
	case <-time.After(testWait):
		t.Fatal("it was not killed")
	}
	if !gone(pid) {
		t.Error("it is still there")
	}
	if p.lastExit != "signal: killed" {
		t.Errorf("exit %q, want that it was killed", p.lastExit)
	}
}

// A launch returns although the first start fails; the start is repeated.
func TestLaunchReturnsWhenTheFirstStartFails(t *testing.T) {
	s := &stack{cfg: Config{RunDir: t.TempDir(), Err: io.Discard}, log: slog.New(slog.DiscardHandler), starter: newStarter()}
	launched := make(chan *process, 1)
	go func() {
		p, err := s.launch(spec{name: "x", role: roleReader, path: "/does/not/exist", ports: []port{{1, "X"}}, notable: notable}, nil)
		if err != nil {
			t.Error(err)
		}
		launched <- p
	}()
	select {
	case p := <-launched:
		if st := p.state(t.Context()); st.State != dashboard.Restarting || !strings.Contains(st.Detail, "no such file") {
			t.Errorf("state %+v, want that it is restarting and why", st)
		}
	case <-time.After(testWait):
		t.Fatal("launch does not return")
	}
	s.stopAll()
	s.starter.close()
}

// A child writes more warnings than a held terminal, a pipe and the queue between them hold.
func TestHeldTerminalBlocksNeitherChildNorStop(t *testing.T) {
	output, err := openLog(filepath.Join(t.TempDir(), "log"), maxLogBytes)
	if err != nil {
		t.Fatal(err)
	}
	starter := newStarter()
	_, held := fullPipe(t)
	term := newTerminal(held)
	const lines = 5000
	p := &process{
		spec: spec{
			name: "child", path: "/bin/sh", env: os.Environ(), notable: notable,
			argv: []string{"sh", "-c", fmt.Sprintf(
				"i=0; while [ $i -lt %d ]; do echo level=WARN msg=%s; i=$((i+1)); done; echo level=INFO msg=done; exec sleep 600",
				lines, strings.Repeat("x", 50))},
		},
		starter: starter, grace: testWait, log: slog.New(slog.DiscardHandler), output: output, terminal: term,
		stopping: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run()
	eventually.True(t, "the child has written everything", func() bool {
		text, _ := os.ReadFile(output.path)
		return bytes.HasSuffix(text, []byte("child | level=INFO msg=done\n")) && bytes.Count(text, []byte("level=WARN")) == lines
	})
	p.stop()
	select {
	case <-p.done:
	case <-time.After(testWait):
		t.Fatal("the stop does not end")
	}
	starter.close()
}

func TestLogFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 39) + "\n"
	for range 5 {
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	for name, want := range map[string]int{path: 1, path + ".1": 2} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), line); got != want {
			t.Errorf("%s has %d lines, want %d", filepath.Base(name), got, want)
		}
	}
	// Opened again it goes on where it was.
	l, err = openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.size != int64(len(line)) {
		t.Errorf("size %d after opening, want %d", l.size, len(line))
	}
}

func TestLogFileSurvivesFailedRotations(t *testing.T) {
	const limit = 100 // bytes
	line := []byte(strings.Repeat("x", 59) + "\n")
	for _, tt := range []struct {
		name       string
		harm, mend func(path string) error
		fails      bool // the rotation, until mend
	}{
		{"the log was deleted", os.Remove, func(string) error { return nil }, false},
		{"the folder was deleted",
			func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
			func(path string) error { return os.Mkdir(filepath.Dir(path), 0o755) }, true},
		{"the old log cannot be replaced",
			func(path string) error { return os.MkdirAll(path+".1/x", 0o755) },
			func(path string) error { return os.RemoveAll(path + ".1") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "logs", "log")
			if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			l, err := openLog(path, limit)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { l.Close() }()
			write := func(n int) (err error) {
				for range n {
					if _, werr := l.Write(line); werr != nil {
						err = werr
					}
				}
				return err
			}
			if err := errors.Join(write(1), tt.harm(path)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Write([]byte("x\n")); err != nil {
				t.Error("a line that fits was lost:", err)
			}
			if text, err := os.ReadFile(path); !tt.fails && string(text) != "x\n" {
				t.Errorf("the log is %q (%v) after a line, want the line", text, err)
			}
			if err := write(1); err != nil {
				t.Error("a line was lost that fits into twice the limit:", err)
			}
			if err := write(10); (err != nil) != tt.fails {
				t.Errorf("error %v after more than that, want one: %v", err, tt.fails)
			}
			if info, err := l.file.Stat(); err != nil || info.Size() > 2*limit {
				t.Errorf("the file has %v bytes (%v), want %d at most", info.Size(), err, 2*limit)
			}
			if err := errors.Join(tt.mend(path), write(1)); err != nil {
				t.Error("after the mend:", err)
			}
			if text, err := os.ReadFile(path); err != nil || !bytes.HasSuffix(text, line) || len(text) > limit {
				t.Errorf("the log is %q (%v), want the newest line in it", text, err)
			}
		})
	}
}

func TestCopyLines(t *testing.T) {
	long := strings.Repeat("y", 70<<10)
	in := "level=INFO msg=started\r\n\nlevel=WARN msg=careful\npanic: oh\nerror: CACHE_MAX_SIZE is wrong\n" + long + "\nno newline"
	var log, terminal bytes.Buffer
	last := copyLines(strings.NewReader(in), "reader-1 | ", &log, &terminal, notable)
	if last != "CACHE_MAX_SIZE is wrong" {
		t.Errorf("error %q", last)
	}
	want := "reader-1 | level=INFO msg=started\nreader-1 | level=WARN msg=careful\nreader-1 | panic: oh\nreader-1 | error: CACHE_MAX_SIZE is wrong\n" +
		"reader-1 | " + long[:64<<10] + "\nreader-1 | " + long[64<<10:] + "\nreader-1 | no newline\n"
	if log.String() != want {
		t.Errorf("log %.300q", log.String())
	}
	if strings.Contains(terminal.String(), "started") || !strings.HasPrefix(terminal.String(), "reader-1 | level=WARN msg=careful\nreader-1 | panic: oh\n") {
		t.Errorf("terminal %.300q", terminal.String())
	}
}

func TestParseConfigRefuses(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no readers", []string{"-readers=0"}, "READERS=0: between 1 and 20"},
		{"too many readers", []string{"-readers=21"}, "READERS=21"},
		{"no port", []string{"-writer-port=0"}, "WRITER_PORT: 0 is not a TCP port"},
		{"a port twice", []string{"-writer-port=9080"}, "both want port 9080"},
		{"a port among the readers'", []string{"-gateway-port=8090"}, "both want port 8090"},
		{"the last readers have no port", []string{"-reader-port=65530"}, "READER_PORT: 65536 is not a TCP port"},
		{"layout", []string{"-redis=ring"}, "REDIS=ring: use single, sentinel or cluster"},
		{"a layout and another Redis", []string{"-redis=sentinel", "-redis-addr=a:1"}, "unset one of them"},
		{"more replicas than there are", []string{"-redis=sentinel", "-redis-min-replicas=3"}, "use 0 to 2"},
		{"a Sentinel's port", []string{"-redis=sentinel", "-redis-port=26377"}, "REDIS_PORT (which stands for 3 ports in a row) and SENTINEL_PORT (which stands for 3 ports in a row) both want port 26379"},
		{"a port of the bus", []string{"-redis=cluster", "-redis-bus-port=6384"}, "both want port 6384"},
		{"level", []string{"-log-level=loud"}, "use debug, info, warn or error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig(tt.args, func(string) string { return "" })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A port of the stack's own Redis matters only when there is one.
func TestExternalRedisNeedsNoPort(t *testing.T) {
	c, err := ParseConfig([]string{"-redis-addr=10.0.0.1:6379,10.0.0.2:6379", "-redis-port=8080"}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	if c.ownRedis() || lookup(c.childEnv(), "REDIS_ADDR") != "10.0.0.1:6379,10.0.0.2:6379" {
		t.Errorf("children get REDIS_ADDR=%s", lookup(c.childEnv(), "REDIS_ADDR"))
	}
}

// What a process says beside its 200 is shown, and what it says beside its 503 is the reason.
func TestCheckHTTPPassesReasonsOn(t *testing.T) {
	for _, tt := range []struct {
		code int
		body string
		want health
	}{
		{200, `{"status":"ready"}`, health{ready: true}},
		{200, `{"status":"ready","reasons":["Redis deletes posts by itself"]}`, health{ready: true, note: "Redis deletes posts by itself"}},
		{200, `{"status":"degraded"}`, health{ready: true, detail: "degraded"}},
		{503, `{"status":"no writes","reasons":["WRONGPASS invalid username-password pair"]}`, health{detail: "WRONGPASS invalid username-password pair"}},
		{503, `gone`, health{detail: "/ready answers 503 Service Unavailable"}},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.code)
			_, _ = io.WriteString(w, tt.body)
		}))
		if got := checkHTTP(srv.URL)(t.Context()); got != tt.want {
			t.Errorf("%d %s: %+v, want %+v", tt.code, tt.body, got, tt.want)
		}
		srv.Close()
	}
}

// The writer sends readers of posts to the gateway, or where the user says.
func TestWriterKnowsWherePostsAreRead(t *testing.T) {
	for env, want := range map[string]string{
		"READER_URL=":                      "http://127.0.0.1:%d",
		"READER_URL=https://posts.example": "https://posts.example",
	} {
		cfg := testConfig(t, env)
		s, err := cfg.writer()
		if err != nil {
			t.Fatal(err)
		}
		if want = strings.Replace(want, "%d", fmt.Sprint(cfg.GatewayPort), 1); lookup(append(cfg.childEnv(), s.env...), "READER_URL") != want {
			t.Errorf("%s: the writer does not have READER_URL=%s", env, want)
		}
	}
}
