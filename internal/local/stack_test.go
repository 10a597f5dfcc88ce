package local

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
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/stack"
	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/rundir"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/pipetest"
	"heavy-read-api/internal/test/proctest"
	"heavy-read-api/internal/test/redistest"
)

const testWait = 30 * time.Second

// run runs a stack in this process until the test ends or stop is called.
func run(t *testing.T, cfg layout.Config) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- stack.Run(ctx, cfg) }()
	stopped := false
	stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		select {
		case err := <-result:
			return err
		case <-time.After(testWait):
			return errors.New("the stack does not stop")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error("stop:", err)
		}
	})
	return stop
}

// runToEnd runs a stack that is not expected to come up.
func runToEnd(t *testing.T, cfg layout.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	return stack.Run(ctx, cfg)
}

// readyState waits until everything is ready and returns the state.
func readyState(t *testing.T, cfg layout.Config) state.Stack {
	t.Helper()
	var st state.Stack
	eventually.True(t, "everything is ready", func() bool {
		var err error
		st, err = control.State(t.Context(), supervisor.Address(cfg.Port))
		return err == nil && st.Ready()
	})
	return st
}

func find(t *testing.T, st state.Stack, name string) state.Process {
	t.Helper()
	i := slices.IndexFunc(st.Processes, func(p state.Process) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("no process %s in %+v", name, st.Processes)
	}
	return st.Processes[i]
}

func TestStackStartsAndStopsEverything(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	stop := run(t, cfg)
	st := readyState(t, cfg)

	var names []string
	pids := make(map[int]bool)
	for _, p := range st.Processes {
		names = append(names, p.Name)
		pids[p.PID] = true
	}
	if want := []string{"redis", "writer", "reader-1", "reader-2", "reader-direct", "auditor", "gateway"}; !slices.Equal(names, want) {
		t.Errorf("processes %v, want %v", names, want)
	}
	if len(pids) != len(names) || pids[0] || pids[os.Getpid()] {
		t.Errorf("pids %v: each process needs its own", pids)
	}
	nodes, _ := os.ReadFile(cfg.File(layout.NodesFile))
	if want := fmt.Sprintf("%s\n%s\n", supervisor.Address(cfg.ReaderPort), supervisor.Address(cfg.ReaderPort+1)); string(nodes) != want {
		t.Errorf("nodes file %q, want %q", nodes, want)
	}
	if pid, control, err := rundir.Running(cfg.RunDir); pid != os.Getpid() || control != supervisor.Address(cfg.Port) || err != nil {
		t.Errorf("running: %d %q %v", pid, control, err)
	}

	if err := stop(); err != nil {
		t.Fatal("stop:", err)
	}
	for pid := range pids {
		if !proctest.Gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if _, err := os.Stat(cfg.File(rundir.PIDFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pid file after the stop: %v", err)
	}
	if pid, _, err := rundir.Running(cfg.RunDir); pid != 0 || err != nil {
		t.Errorf("running after the stop: %d %v", pid, err)
	}
}

// killAndAwait kills a process of a ready stack and waits until the supervisor has restarted it.
func killAndAwait(t *testing.T, cfg layout.Config, name string) {
	t.Helper()
	victim := find(t, readyState(t, cfg), name)
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, name+" is back as another process", func() bool {
		now := find(t, readyState(t, cfg), name)
		return now.PID != victim.PID && now.Restarts == victim.Restarts+1
	})
}

func TestChildThatDiesIsStartedAgain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	run(t, cfg)
	before := readyState(t, cfg)
	killAndAwait(t, cfg, "reader-1")
	for _, p := range readyState(t, cfg).Processes {
		if p.Name != "reader-1" && (p.PID != find(t, before, p.Name).PID || p.Restarts != 0) {
			t.Errorf("%s was restarted too: %+v", p.Name, p)
		}
	}
}

// Only a process that has never been ready can end the stack: one that works and is killed again and again, before it
// is ready too, is restarted each time.
func TestProcessThatIsKilledOftenIsStartedAgain(t *testing.T) {
	t.Parallel()
	const kills = 5 // more than the starts after which a process that was never ready ends the stack
	cfg := testConfig(t)
	run(t, cfg)
	readyState(t, cfg)
	if err := scaleTo(t, cfg, 3); err != nil {
		t.Fatal(err)
	}
	killed := make(map[string]int) // pid of the last kill, by name
	for n := range kills {
		for _, name := range []string{"redis", "writer", "reader-1", "reader-3", "gateway"} {
			eventually.True(t, fmt.Sprintf("%s runs before kill %d", name, n+1), func() bool {
				st, err := control.State(t.Context(), supervisor.Address(cfg.Port))
				if err != nil {
					return false
				}
				p := find(t, st, name)
				if p.PID == 0 || p.PID == killed[name] || syscall.Kill(p.PID, syscall.SIGKILL) != nil {
					return false
				}
				killed[name] = p.PID
				return true
			})
		}
	}
	for name := range killed {
		eventually.True(t, name+" is restarted after every kill", func() bool {
			return find(t, readyState(t, cfg), name).Restarts == kills
		})
	}
}

// Readers that were added stand beside the others in the state.
func TestOrderOfTheProcesses(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	run(t, cfg)
	readyState(t, cfg)
	for _, n := range []int{1, 3} {
		if err := scaleTo(t, cfg, n); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, p := range readyState(t, cfg).Processes {
		names = append(names, p.Name)
	}
	if want := []string{"redis", "writer", "reader-1", "reader-2", "reader-3", "reader-direct", "auditor", "gateway"}; !slices.Equal(names, want) {
		t.Errorf("processes %v, want %v", names, want)
	}
}

func TestPortInUse(t *testing.T) {
	for name, pick := range map[string]func(layout.Config) (int, string){
		"the dashboard": func(c layout.Config) (int, string) { return c.Port, "DASHBOARD_PORT" },
		"redis":         func(c layout.Config) (int, string) { return c.RedisPort, "REDIS_PORT" },
		"writer":        func(c layout.Config) (int, string) { return c.WriterPort, "WRITER_PORT" },
		"reader-2":      func(c layout.Config) (int, string) { return c.ReaderPort + 1, "READER_PORT" },
		"reader-direct": func(c layout.Config) (int, string) { return c.DirectPort, "DIRECT_PORT" },
		"gateway":       func(c layout.Config) (int, string) { return c.GatewayMetricsPort, "GATEWAY_METRICS_PORT" },
		"auditor":       func(c layout.Config) (int, string) { return c.AuditorPort, "AUDITOR_PORT" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			number, env := pick(cfg)
			ln, err := net.Listen("tcp", supervisor.Address(number))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			err = runToEnd(t, cfg)
			want := fmt.Sprintf("port %d is in use and %s needs it: stop what listens there, or set %s to another port", number, name, env)
			if err == nil || err.Error() != want {
				t.Errorf("error %q, want %q", err, want)
			}
			if logs, _ := filepath.Glob(cfg.File("*.log")); len(logs) > 0 {
				t.Errorf("something was started: %v", logs)
			}
		})
	}
}

// A port that is taken between the check and the start of the process that needs it.
func TestPortTakenAfterTheCheck(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Env = append(cfg.Env, fmt.Sprintf("FAKE_STEAL=%d", cfg.GatewayPort))
	err := runToEnd(t, cfg)
	want := fmt.Sprintf("port %d is in use and gateway needs it: stop what listens there, or set GATEWAY_PORT to another port", cfg.GatewayPort)
	if err == nil || err.Error() != want {
		t.Fatalf("error %v, want %q", err, want)
	}
	for _, p := range []int{cfg.RedisPort, cfg.WriterPort, cfg.ReaderPort, cfg.GatewayPort} {
		if conn, err := net.Dial("tcp", supervisor.Address(p)); err == nil {
			conn.Close()
			t.Errorf("something was left running on port %d", p)
		}
	}
}

func TestConfigurationThatCannotWorkEndsTheStart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Env = append(cfg.Env, fmt.Sprintf("FAKE_REFUSE=%d", cfg.WriterPort))
	err := runToEnd(t, cfg)
	if err == nil || err.Error() != "writer cannot start: FAKE_REFUSE names this port" {
		t.Errorf("error %v", err)
	}
}

// Go's exit code for a panic must not be taken for a configuration that cannot work.
func TestChildThatPanicsAtTheStartIsStartedAgain(t *testing.T) {
	t.Parallel()
	once := filepath.Join(t.TempDir(), "panic")
	if err := os.WriteFile(once, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Env = append(cfg.Env, "FAKE_PANIC="+once)
	run(t, cfg)
	if p := find(t, readyState(t, cfg), "reader-1"); p.Restarts != 1 {
		t.Errorf("reader-1 was restarted %d times, want once", p.Restarts)
	}
}

// wait returns how a process ended.
func wait(t *testing.T, cmd *exec.Cmd) error {
	t.Helper()
	timer := time.AfterFunc(testWait, func() {
		t.Error("the stack does not end")
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	return cmd.Wait()
}

// foreground starts the program with `run` and these settings.
func foreground(t *testing.T, env []string, prepare func(*exec.Cmd)) (*exec.Cmd, layout.Config) {
	t.Helper()
	cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run")
	cmd.Env = append(os.Environ(), env...)
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, cfg
}

func TestClosedTerminalStopsInOrder(t *testing.T) {
	// Where the tests run under nohup, the stack would inherit that the signal is ignored. A signal that
	// is handled here has its default action there.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, syscall.SIGHUP)
	defer signal.Stop(handled)
	path := filepath.Join(t.TempDir(), "events")
	cmd, cfg := foreground(t, append(testEnv(t), "FAKE_EVENTS="+path), nil)
	readyState(t, cfg)
	for range 2 { // the kernel's signal and the shell's
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if err := wait(t, cmd); err != nil {
		t.Errorf("the stack ended with %v, want an orderly stop", err)
	}
	seen := seenEvents(t, path)
	for _, name := range []string{"reader-1", "reader-2", "reader-direct"} {
		if !slices.Contains(seen, "term "+name) {
			t.Errorf("%s was not stopped gracefully: %v", name, seen)
		}
	}
}

func TestNohupKeepsTheStackUp(t *testing.T) {
	t.Parallel()
	cmd, cfg := foreground(t, testEnv(t), func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0" run`, os.Args[0]}
	})
	readyState(t, cfg)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	killAndAwait(t, cfg, "reader-1") // a stack that stops starts nothing again
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, cmd); err != nil {
		t.Errorf("the stack ended with %v", err)
	}
}

// No output may block the supervisor: neither its own log and the addresses of the start, nor its children's
// warnings.
func TestOutputThatIsHeldOrGone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		gone bool // the reader of the pipe, else it only takes nothing
	}{{"held", false}, {"gone", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r, w := pipetest.Full(t)
			if tt.gone {
				r.Close()
			}
			cmd, cfg := foreground(t, testEnv(t), func(cmd *exec.Cmd) { cmd.Stdout, cmd.Stderr = w, w })
			killAndAwait(t, cfg, "reader-1") // the supervisor warns about it
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := wait(t, cmd); err != nil {
				t.Errorf("the stack ended with %v, want an orderly stop", err)
			}
		})
	}
}

func TestOneStackPerRunFolder(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	run(t, cfg)
	readyState(t, cfg)
	other := testConfig(t, "RUN_DIR="+cfg.RunDir)
	if err := runToEnd(t, other); !errors.Is(err, rundir.ErrRunning) {
		t.Errorf("a second stack in the same folder: %v", err)
	}
	if pid, control, _ := rundir.Running(cfg.RunDir); pid != os.Getpid() || control != supervisor.Address(cfg.Port) {
		t.Errorf("it took the first one's pid file: %d %s", pid, control)
	}
}

// seenEvents returns the lines that the fake children wrote.
func seenEvents(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func TestScale(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events")
	cfg := testConfig(t, "FAKE_EVENTS="+path, "FAKE_RELOAD=300ms", "FAKE_LOAD=1s")
	run(t, cfg)
	readyState(t, cfg)
	node := func(n int) string { return supervisor.Address(cfg.ReaderPort + n - 1) }

	if err := scaleTo(t, cfg, 4); err != nil {
		t.Fatal(err)
	}
	st := readyState(t, cfg)
	third := find(t, st, "reader-3")
	find(t, st, "reader-4")
	eventually.True(t, "the gateway has four nodes", func() bool {
		return slices.Contains(seenEvents(t, path), "nodes "+strings.Join([]string{node(1), node(2), node(3), node(4)}, ","))
	})
	seen := seenEvents(t, path)
	grown := slices.Index(seen, "nodes "+strings.Join([]string{node(1), node(2), node(3), node(4)}, ","))
	for _, name := range []string{"reader-3", "reader-4"} {
		if i := slices.Index(seen, "ready "+name); i < 0 || i > grown {
			t.Errorf("%s got traffic before it was ready: %v", name, seen)
		}
	}

	if err := scaleTo(t, cfg, 1); err != nil {
		t.Fatal(err)
	}
	if !proctest.Gone(third.PID) {
		t.Error("reader-3 still runs")
	}
	seen = seenEvents(t, path)
	shrunk := slices.Index(seen, "nodes "+node(1))
	for _, name := range []string{"reader-2", "reader-3", "reader-4"} {
		if i := slices.Index(seen, "term "+name); shrunk < 0 || i < shrunk {
			t.Errorf("%s was stopped before the gateway had dropped it: %v", name, seen)
		}
	}
	if slices.Contains(seen, "term reader-1") {
		t.Error("reader-1 was stopped")
	}
	st = readyState(t, cfg)
	if slices.ContainsFunc(st.Processes, func(p state.Process) bool { return p.Name == "reader-2" }) {
		t.Errorf("reader-2 is still listed: %+v", st.Processes)
	}
}

// rotation returns the ports of the readers that the gateway uses.
func rotation(t *testing.T, cfg layout.Config) []int {
	t.Helper()
	nodes, err := cfg.GatewayNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var used []int
	for port, ready := range nodes {
		if ready {
			used = append(used, port)
		}
	}
	slices.Sort(used)
	return used
}

// The gateway uses a reader only some time after it has listed it.
func TestStartAndScaleWaitForTheRotation(t *testing.T) {
	t.Parallel()
	env := append(testEnv(t), "FAKE_TAKE=1500ms")
	cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local(t, env, "stop") })
	for i, command := range [][]string{{"start"}, {"scale", "4"}} {
		if out, code := local(t, env, command...); code != 0 {
			t.Fatalf("%v: exit code %d\n%s", command, code, out)
		}
		want := []int{cfg.ReaderPort, cfg.ReaderPort + 1, cfg.ReaderPort + 2, cfg.ReaderPort + 3}[:2+2*i]
		if got := rotation(t, cfg); !slices.Equal(got, want) {
			t.Errorf("the gateway uses %v after %v, want %v", got, command, want)
		}
	}
}

func TestStartAndScaleNameTheReaderThatIsMissing(t *testing.T) {
	env := testEnv(t)
	base, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, fmt.Sprintf("FAKE_UNUSED=%d", base.ReaderPort+1))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	t.Cleanup(func() { local(t, env, "stop") })
	const bound = 3 * time.Second
	base.Out = io.Discard
	c := &processes{&program{ctx: t.Context(), out: io.Discard, startWait: bound}, base}
	for _, when := range []string{"at the start", "when it runs already"} {
		want := fmt.Sprintf("not ready after %s: gateway (degraded: %s: not used)", bound, supervisor.Address(base.ReaderPort+1))
		if err := c.start(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", when, err, want)
		}
	}
	if out, code := local(t, env, "scale", "1"); code != 0 {
		t.Errorf("scale 1: exit code %d\n%s", code, out)
	}
	const want = "error: not every new reader is in rotation: reader-2 (the gateway does not use it yet)"
	if out, code := local(t, env, "scale", "3"); code != 1 || !strings.Contains(out, want) {
		t.Errorf("scale 3: exit code %d, want 1 and %q\n%s", code, want, out)
	}
	if got, want := rotation(t, base), []int{base.ReaderPort, base.ReaderPort + 2}; !slices.Equal(got, want) {
		t.Errorf("the gateway uses %v, want %v", got, want)
	}
}

func TestScaleUpThatCannotWorkIsUndone(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Env = append(cfg.Env, fmt.Sprintf("FAKE_REFUSE=%d", cfg.ReaderPort+3))
	run(t, cfg)
	readyState(t, cfg)
	const want = "reader-4 cannot start: FAKE_REFUSE names this port"
	if err := scaleTo(t, cfg, 4); err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if st := readyState(t, cfg); len(st.Processes) != 7 {
		t.Errorf("processes after that: %+v", st.Processes)
	}
	if err := scaleTo(t, cfg, 3); err != nil {
		t.Error("scale to what works:", err)
	}
	if got, want := rotation(t, cfg), []int{cfg.ReaderPort, cfg.ReaderPort + 1, cfg.ReaderPort + 2}; !slices.Equal(got, want) {
		t.Errorf("the gateway uses %v, want %v", got, want)
	}
}

// scaleTo scales through the control API, as the command does.
func scaleTo(t *testing.T, cfg layout.Config, n int) error {
	t.Helper()
	_, err := control.Scale(t.Context(), supervisor.Address(cfg.Port), n)
	return err
}

func TestControlRefuses(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	run(t, cfg)
	before := readyState(t, cfg)
	tests := []struct {
		name, host, origin, body string
		status                   int
	}{
		{"no readers", "", "", `{"readers":0}`, 400},
		{"too many", "", "", `{"readers":21}`, 400},
		{"not a number", "", "", `{"readers":"many"}`, 400},
		{"unknown member", "", "", `{"reader":3}`, 400},
		{"another origin", "", "http://example.com", `{"readers":3}`, 403},
		{"the same machine, another port", "", "http://localhost:1", `{"readers":3}`, 403},
		{"a name that was made to point here", "example.com", "", `{"readers":3}`, 403},
		{"that, and its own origin", "example.com", "http://example.com", `{"readers":3}`, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+supervisor.Address(cfg.Port)+"/api/scale", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = tt.host
			if tt.origin != "" {
				req.Header.Set("Origin", tt.origin)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d", res.StatusCode, tt.status)
			}
		})
	}
	if after := readyState(t, cfg); len(after.Processes) != len(before.Processes) {
		t.Errorf("the number of processes changed: %+v", after.Processes)
	}
}

// local runs this test binary as the program, and returns what it printed.
func local(t *testing.T, env []string, args ...string) (output string, code int) {
	t.Helper()
	// Not the test's context, which is over when the test cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), testWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	env := testEnv(t)
	cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	// A pid file that a killed supervisor left, whose pid now belongs to another process: the test.
	if err := os.WriteFile(cfg.File(rundir.PIDFile), fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	expect := func(code int, want []string, args ...string) {
		t.Helper()
		out, got := local(t, env, args...)
		if got != code {
			t.Errorf("%v: exit code %d, want %d\n%s", args, got, code, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%v: %q is missing in\n%s", args, w, out)
			}
		}
	}
	expect(1, []string{"error: the stack is not running"}, "health")
	expect(0, []string{"The stack is not running."}, "stop")
	t.Cleanup(func() { local(t, env, "stop") })
	expect(0, []string{"reader-direct", "ready on", "The stack is up", "http://localhost:" + fmt.Sprint(cfg.GatewayPort)}, "start")
	expect(0, []string{"already running"}, "start")
	expect(0, []string{"gateway", "ready", "auditor"}, "health")
	expect(0, []string{"reader-3"}, "scale", "3")
	expect(0, []string{"reader-2", "gateway", "auditor: "}, "stats")
	expect(2, []string{"make scale N=5"}, "scale")
	expect(1, []string{"between 1 and 20"}, "scale", "0")
	pid, _, err := rundir.Running(cfg.RunDir)
	if err != nil || pid == 0 {
		t.Fatalf("running: %d %v", pid, err)
	}
	expect(0, []string{"Stopped in"}, "stop")
	if !proctest.Gone(pid) {
		t.Error("the supervisor is still there")
	}
	expect(0, []string{"not running"}, "stop")
	expect(2, []string{`there is no command "strat"`}, "strat")
	expect(0, []string{"Deleted"}, "clean")
	if _, err := os.Stat(cfg.RunDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run folder after clean: %v", err)
	}
}

// A setting that was broken after the start does not keep a running stack from being examined and stopped.
func TestBrokenSettingsDoNotBlockARunningStack(t *testing.T) {
	t.Parallel()
	env := testEnv(t)
	program := testProgram(t)
	dir := t.TempDir()
	t.Cleanup(func() { local(t, env, "stop") })
	if out, code := execute(t, dir, env, program, "start"); code != 0 {
		t.Fatalf("start: exit code %d\n%s", code, out)
	}
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("export A=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "READERS=x")
	const line = ".env, line 1: write NAME=value without export\n"
	for _, command := range []string{"start", "run"} {
		if out, code := execute(t, dir, env, program, command); code != 2 || out != "error: "+line {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
	for _, command := range []string{"health", "stats", "stop", "clean"} {
		out, code := execute(t, dir, env, program, command)
		if code != 0 || !strings.HasPrefix(out, "warning: "+line+"warning: READERS=") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
}

func TestStartTellsWhyItFailed(t *testing.T) {
	env := testEnv(t)
	taken := layout.Getenv(env, "GATEWAY_PORT")
	ln, err := net.Listen("tcp", net.JoinHostPort(supervisor.Host, taken))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, command := range []string{"start", "run"} {
		out, code := local(t, env, command)
		if code != 1 || !strings.Contains(out, "error: port "+taken+" is in use and gateway needs it") {
			t.Errorf("%s: exit code %d\n%s", command, code, out)
		}
	}
}

// Nothing listens at REDIS_ADDR: the start fails soon, with a sentence that has the address, and without the lines of
// the Redis client, which logs every failed attempt.
func TestStartWithoutTheExternalRedis(t *testing.T) {
	t.Parallel()
	env := testEnv(t)
	addr := supervisor.Address(1)
	env = append(env, "REDIS_ADDR="+addr)
	out, code := local(t, env, "start")
	want := "error: REDIS_ADDR=" + addr + ": connection refused; start that Redis or change the address\n"
	if code != 1 || !strings.HasSuffix(out, want) {
		t.Errorf("exit code %d, want %q\n%s", code, want, out)
	}
	log, err := os.ReadFile(filepath.Join(layout.Getenv(env, "RUN_DIR"), "stack.log"))
	if err != nil || strings.Contains(string(log), "pool.go") {
		t.Errorf("stack.log (%v):\n%s", err, log)
	}
}

// The supervisor is killed by SIGKILL, so that no handler of its own can run.
func TestNoOrphans(t *testing.T) {
	t.Parallel()
	if self, _ := supervisor.Self(); self != "/proc/self/exe" {
		t.Skip("children are tied to the supervisor only on Linux")
	}
	env := testEnv(t)
	cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(env, name) })
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run", "-background")
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	st := readyState(t, cfg)
	if st.PID != cmd.Process.Pid {
		t.Fatalf("pid %d answers, want %d", st.PID, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Processes {
		eventually.True(t, p.Name+" has ended with the supervisor", func() bool { return proctest.Gone(p.PID) })
	}
	// And the next start is not confused by what was left.
	if out, code := local(t, env, "start"); code != 0 {
		t.Errorf("start after the kill: exit code %d\n%s", code, out)
	}
	if out, code := local(t, env, "stop"); code != 0 {
		t.Errorf("stop: exit code %d\n%s", code, out)
	}
}

// A start that cannot succeed ends within seconds, leaves no process behind, and quotes the last lines of the
// process that failed.
func TestStartThatCannotWorkEnds(t *testing.T) {
	redistest.Require(t)
	guarded := redistest.Start(t, redistest.Password("right")).Addr()
	script := filepath.Join(t.TempDir(), "redis-server")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'out of luck'\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		want []string
	}{
		{"append-only file", []string{"REDIS_SERVER=redis-server"}, []string{"redis cannot start: Bad file format reading the append only file", "redis-check-aof --fix"}},
		{"program", []string{"REDIS_SERVER=" + script}, []string{"redis cannot start: out of luck (exit status 3, see "}},
		{"silent program", []string{"REDIS_SERVER=false"}, []string{"redis cannot start: exit status 1, see "}},
		{"namespace", []string{"CACHE_NAMESPACE={x}"}, []string{"cannot start: CACHE_NAMESPACE: namespace \"{x}\": braces mark the shard"}},
		{"password", []string{"REDIS_ADDR=" + guarded, "REDIS_PASSWORD=wrong"}, []string{"cannot work", "WRONGPASS", "check REDIS_USERNAME and REDIS_PASSWORD"}},
		{"no password", []string{"REDIS_ADDR=" + guarded}, []string{"cannot work", "NOAUTH", "check REDIS_PASSWORD"}},
		{"database", []string{"REDIS_ADDR=" + guarded, "REDIS_PASSWORD=right", "REDIS_DB=99"}, []string{"cannot work", "DB index is out of range", "check REDIS_DB"}},
		{"host", []string{"REDIS_ADDR=unknown.invalid:6379"}, []string{"cannot work", "unknown.invalid", "check REDIS_ADDR"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := append(testEnv(t), childEnvironment+"="+realChildren)
			env = append(env, tt.env...)
			dir := filepath.Join(layout.Getenv(env, "RUN_DIR"), "redis", "appendonlydir")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string]string{"appendonly.aof.manifest": "file appendonly.aof.1.incr.aof seq 1 type i\n", "appendonly.aof.1.incr.aof": "garbage\n"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			out, code := local(t, env, "start")
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the start took %v to fail", took)
			}
			if code != 1 || strings.Contains(out, "ready on "+guarded) {
				t.Errorf("exit code %d, or Redis is said to be ready\n%s", code, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
			if out, _ := local(t, env, "health"); !strings.Contains(out, "not running") {
				t.Errorf("after the failed start: %s", out)
			}
		})
	}
}
