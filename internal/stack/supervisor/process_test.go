package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/pipetest"
	"heavy-read-api/internal/test/proctest"
)

// A child that ignores SIGTERM, and its own child, are killed when their time is up.
func TestStubbornChildIsKilled(t *testing.T) {
	output, err := openLog(filepath.Join(t.TempDir(), "log"), maxLogBytes)
	if err != nil {
		t.Fatal(err)
	}
	starter := newStarter()
	defer starter.close()
	p := newProcess(Spec{
		Name: "stubborn", Path: "/bin/sh", Env: os.Environ(), Notable: notable,
		Argv: []string{"sh", "-c", "trap '' TERM; echo ignoring; while :; do sleep 1; done"},
	}, starter, slog.New(slog.DiscardHandler), output, io.Discard)
	p.grace = 200 * time.Millisecond
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
	if !proctest.Gone(pid) {
		t.Error("it is still there")
	}
	if p.lastExit != "signal: killed" {
		t.Errorf("exit %q, want that it was killed", p.lastExit)
	}
}

// An orderly exit is not logged as a death.
func TestLogOfAnExit(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0": `level=WARN msg="process has stopped; restarting it" process=x exit="exit status 0"`,
		"exit 1": `level=WARN msg="process died; restarting it" process=x exit="exit status 1"`,
	} {
		path := filepath.Join(t.TempDir(), "log")
		log, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		s := New(t.TempDir(), slog.New(slog.NewTextHandler(log, nil)), io.Discard)
		spec := Spec{Name: "x", Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Ports: []Port{{1, "X"}}, Notable: notable}
		if _, err := s.Launch(spec, nil); err != nil {
			t.Fatal(err)
		}
		eventually.True(t, want, func() bool {
			text, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(text), want)
		})
		s.StopAll()
		s.Close()
		log.Close()
	}
}

// A launch returns although the first start fails; the start is repeated.
func TestLaunchReturnsWhenTheFirstStartFails(t *testing.T) {
	s := New(t.TempDir(), slog.New(slog.DiscardHandler), io.Discard)
	launched := make(chan *Process, 1)
	go func() {
		p, err := s.Launch(Spec{Name: "x", Path: "/does/not/exist", Ports: []Port{{1, "X"}}, Notable: notable}, nil)
		if err != nil {
			t.Error(err)
		}
		launched <- p
	}()
	select {
	case p := <-launched:
		if st := p.State(t.Context()); st.State != state.Restarting || !strings.Contains(st.Detail, "no such file") {
			t.Errorf("state %+v, want that it is restarting and why", st)
		}
	case <-time.After(testWait):
		t.Fatal("launch does not return")
	}
	s.StopAll()
	s.Close()
}

// A child writes more warnings than a held terminal, a pipe and the queue between them hold.
func TestHeldTerminalBlocksNeitherChildNorStop(t *testing.T) {
	output, err := openLog(filepath.Join(t.TempDir(), "log"), maxLogBytes)
	if err != nil {
		t.Fatal(err)
	}
	starter := newStarter()
	_, held := pipetest.Full(t)
	term := NewTerminal(held)
	const lines = 5000
	p := newProcess(Spec{
		Name: "child", Path: "/bin/sh", Env: os.Environ(), Notable: notable,
		Argv: []string{"sh", "-c", fmt.Sprintf(
			"i=0; while [ $i -lt %d ]; do echo level=WARN msg=%s; i=$((i+1)); done; echo level=INFO msg=done; exec sleep 600",
			lines, strings.Repeat("x", 50))},
	}, starter, slog.New(slog.DiscardHandler), output, term)
	p.grace = testWait
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

func TestNextBackoff(t *testing.T) {
	tests := []struct {
		previous, lived, want time.Duration
	}{
		{0, 0, 200 * time.Millisecond},
		{0, time.Hour, 200 * time.Millisecond},
		{200 * time.Millisecond, time.Second, 400 * time.Millisecond},
		{3200 * time.Millisecond, time.Second, 5 * time.Second},
		{5 * time.Second, 9 * time.Second, 5 * time.Second},
		{5 * time.Second, 10 * time.Second, 200 * time.Millisecond},
	}
	for _, tt := range tests {
		if got := nextBackoff(tt.previous, tt.lived); got != tt.want {
			t.Errorf("after a wait of %s and a life of %s: %s, want %s", tt.previous, tt.lived, got, tt.want)
		}
	}
}

// A port that this user may not bind is not in use.
func TestPortThatMayNotBeBound(t *testing.T) {
	err := PortError(Port{80, "GATEWAY_PORT"}, "gateway", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	if want := "gateway may not listen on port 80: this user lacks the permission, so set GATEWAY_PORT to a port above 1023"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

// notable is the Notable of a process with text logs.
func notable(line string) bool { return !strings.Contains(line, "level=INFO") }

const testWait = 30 * time.Second

// The kernel may have given the port to an outgoing connection, and keeps it for a minute after that has ended.
func TestPortOfAnOutgoingConnection(t *testing.T) {
	ln, err := net.Listen("tcp", Address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	number := client.LocalAddr().(*net.TCPAddr).Port
	check := func(when string) {
		t.Helper()
		err := CheckPorts(Spec{Name: "writer", Ports: []Port{{number, "WRITER_PORT"}}})
		want := fmt.Sprintf("port %d, which writer needs, is the local port of an outgoing connection, open or closed less than a minute ago: try again in a minute, or set WRITER_PORT to another port", number)
		if err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %q", when, err, want)
		}
	}
	check("open")
	client.Close() // first, so that its side is the one in TIME-WAIT
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	server.Close()
	check("closed")

	number = ln.Addr().(*net.TCPAddr).Port
	want := fmt.Sprintf("port %d is in use and writer needs it: stop what listens there, or set WRITER_PORT to another port", number)
	if err := CheckPorts(Spec{Name: "writer", Ports: []Port{{number, "WRITER_PORT"}}}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}
