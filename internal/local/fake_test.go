package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/auditor"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/load"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/stack"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
	"heavy-read-api/internal/writer"
)

// TestMain runs the test binary as the program `local` if childEnvironment is set, because the stack under test starts its
// own program again for each process. The roles are fakes, or the real ones for the value realChildren.
func TestMain(m *testing.M) {
	if os.Getenv(childEnvironment) == "" {
		os.Exit(m.Run())
	}
	role := func(args []string) int {
		return daemon.Main(args, os.Getenv, os.Stderr, parseFake, runFake)
	}
	roles := map[string]Role{state.Writer: role, state.Reader: role, state.Gateway: role, state.Load: role, state.Auditor: role}
	if os.Getenv(childEnvironment) == wholeStack {
		roles[state.Gateway] = func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, gateway.ParseConfig, gateway.Run)
		}
		roles[state.Load] = func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, load.ParseConfig, load.Run)
		}
		roles[state.Auditor] = func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, auditor.ParseConfig, auditor.Run)
		}
	}
	if as := os.Getenv(childEnvironment); as == realChildren || as == wholeStack {
		roles[state.Writer] = func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, writer.ParseConfig, writer.Run)
		}
		roles[state.Reader] = func(args []string) int {
			return daemon.Main(args, os.Getenv, os.Stderr, reader.ParseConfig, reader.Run)
		}
	}
	p := &program{out: os.Stdout, err: os.Stderr, startWait: stack.StartWait, pause: 10 * time.Millisecond}
	os.Exit(p.main(os.Args[1:], roles))
}

const (
	childEnvironment = "STACK_TEST_CHILD"
	realChildren     = "real"  // value of childEnvironment that selects the real writer and readers
	wholeStack       = "whole" // value of childEnvironment that also selects the real gateway, load generator and auditor
)

// fake is a process with the interfaces that the supervisor uses. Its settings make it misbehave.
type fake struct {
	daemon.Common
	podID, nodes string
	metricsPort  int

	stealPort int           // FAKE_STEAL: the reader called reader-1 listens on this port too
	refuse    string        // FAKE_REFUSE: the process on this port reports that its configuration cannot work
	panics    string        // FAKE_PANIC: reader-1 deletes this file and panics, if the file exists
	events    string        // FAKE_EVENTS: file that gets a line for each event whose order a test checks
	reload    time.Duration // FAKE_RELOAD: how often the gateway reads its nodes
	load      time.Duration // FAKE_LOAD: time until a process is ready
	take      time.Duration // FAKE_TAKE: time until the gateway uses a reader that it lists
	unused    string        // FAKE_UNUSED: port of a reader that the gateway never uses
}

func parseFake(args []string, getenv func(string) string) (fake, error) {
	f := fake{reload: 20 * time.Millisecond}
	s := daemon.NewSettings("fake", getenv)
	f.Register(s, 0)
	s.String(&f.podID, "POD_ID", "", "")
	s.String(&f.nodes, "GATEWAY_NODES_FILE", "", "")
	s.Int(&f.metricsPort, "METRICS_PORT", 0, "")
	s.Int(&f.stealPort, "FAKE_STEAL", 0, "")
	s.String(&f.refuse, "FAKE_REFUSE", "", "")
	s.String(&f.panics, "FAKE_PANIC", "", "")
	s.String(&f.events, "FAKE_EVENTS", "", "")
	s.String(&f.unused, "FAKE_UNUSED", "", "")
	if err := s.Parse(args); err != nil {
		return f, err
	}
	for name, p := range map[string]*time.Duration{"FAKE_RELOAD": &f.reload, "FAKE_LOAD": &f.load, "FAKE_TAKE": &f.take} {
		text := getenv(name)
		if text == "" {
			continue
		}
		var err error
		if *p, err = time.ParseDuration(text); err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
	}
	if f.refuse == fmt.Sprint(f.Port) {
		return f, errors.New("FAKE_REFUSE names this port")
	}
	return f, nil
}

func runFake(ctx context.Context, f fake) error {
	if f.stealPort != 0 && f.podID == "reader-1" {
		ln, err := net.Listen("tcp", supervisor.Address(f.stealPort))
		if err != nil {
			return err
		}
		defer ln.Close()
	}
	if f.podID == "reader-1" && f.panics != "" && os.Remove(f.panics) == nil {
		panic("FAKE_PANIC")
	}
	if f.podID == "" && f.isGateway() {
		return f.gateway(ctx)
	}
	ln, err := f.Common.Listen()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	began := time.Now()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(began) < f.load {
			httpkit.JSON(w, http.StatusServiceUnavailable, map[string]string{"health": "loading"})
			return
		}
		f.event("ready " + f.podID)
		httpkit.JSON(w, http.StatusOK, map[string]string{"health": "ready"})
	})
	err = httpkit.Serve(ctx, ln, httpkit.NewServer(mux, f.Logger), 0, nil)
	f.event("term " + f.podID)
	return err
}

func (f *fake) isGateway() bool {
	return strings.Contains(strings.Join(os.Args, " "), " "+state.Gateway+" ")
}

// gateway follows the nodes file as the real one does and lists the nodes in its metrics.
func (f *fake) gateway(ctx context.Context) error {
	if f.stealPort == f.Port { // wait until reader-1 has taken the port
		poll.Until(ctx, func() bool {
			conn, err := net.Dial("tcp", supervisor.Address(f.Port))
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
	ln, err := f.Common.Listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	back, err := (&daemon.Common{Host: supervisor.Host, Port: f.metricsPort}).Listen()
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards nodes and listed
	var nodes []string
	listed := make(map[string]time.Time) // time at which a node was listed
	used := func(node string) bool {
		return time.Since(listed[node]) >= f.take && !strings.HasSuffix(node, ":"+f.unused)
	}
	read := func() {
		text, _ := os.ReadFile(f.nodes)
		mu.Lock()
		defer mu.Unlock()
		next := strings.Fields(string(text))
		if !slices.Equal(next, nodes) {
			f.event("nodes " + strings.Join(next, ","))
		}
		for _, n := range next {
			if !slices.Contains(nodes, n) {
				listed[n] = time.Now()
			}
		}
		nodes = next
	}
	read()
	go func() {
		for range time.Tick(f.reload) {
			read()
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var reasons []string
		for _, n := range nodes {
			if !used(n) {
				reasons = append(reasons, n+": not used")
			}
		}
		httpkit.JSON(w, http.StatusOK, map[string]any{
			"health": "ready", "readers": len(nodes), "ready": len(nodes) - len(reasons), "reasons": reasons,
		})
	})
	mux.HandleFunc("GET "+layout.GatewayMetricsPath, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range nodes {
			h, p, _ := net.SplitHostPort(n)
			status := 0
			if used(n) {
				status = 1
			}
			fmt.Fprintf(w, "apisix_upstream_status{ip=%q,name=\"reader\",port=%q} %d\n", h, p, status)
		}
	})
	return httpkit.Serve(ctx, back, httpkit.NewServer(mux, f.Logger), 0, nil)
}

// event appends a line to the events file; short appends of several processes do not mix.
func (f *fake) event(line string) {
	if f.events == "" {
		return
	}
	file, err := os.OpenFile(f.events, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fprintln(file, line)
}

// portBlock is the last block of ports that a test of this process got. The ports are below the range from which
// the kernel takes ports for outgoing connections, and apart from those of package redistest.
var portBlock atomic.Int64

const firstTestPort, lastTestPort = 10000, 20000

// Processes of the layouts of Redis.
const sentinels, sentinelServers, clusterNodes = 3, 3, 6

// Ports of a stack: six single ports, the readers, the Sentinels, the nodes of a cluster and their buses, the load
// generator and Prometheus.
const portsPerStack = 6 + layout.MaxReaders + sentinels + 2*clusterNodes + 2

// testConfig returns the configuration of a separate stack on free ports, with fake children and the embedded Redis.
func testConfig(t *testing.T, env ...string) layout.Config {
	t.Helper()
	all := append(testEnv(t), env...)
	cfg, err := layout.ParseConfig(nil, func(name string) string { return layout.Getenv(all, name) })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Env = append(os.Environ(), all...)
	cfg.Background, cfg.Out, cfg.Logger = true, io.Discard, slog.New(slog.DiscardHandler)
	return cfg
}

// testEnv returns the environment for testConfig.
func testEnv(t *testing.T) []string {
	t.Helper()
	base := freeBlock(t)
	return []string{
		childEnvironment + "=1", "RUN_DIR=" + t.TempDir(), "RUNTIME=local", "REDIS_SERVER=" + layout.Embedded, "READERS=2",
		fmt.Sprintf("DASHBOARD_PORT=%d", base), fmt.Sprintf("WRITER_PORT=%d", base+1),
		fmt.Sprintf("DIRECT_PORT=%d", base+2), fmt.Sprintf("GATEWAY_PORT=%d", base+3),
		fmt.Sprintf("GATEWAY_METRICS_PORT=%d", base+4), fmt.Sprintf("AUDITOR_PORT=%d", base+5), fmt.Sprintf("READER_PORT=%d", base+6),
		fmt.Sprintf("SENTINEL_PORT=%d", base+6+layout.MaxReaders), fmt.Sprintf("REDIS_PORT=%d", base+6+layout.MaxReaders+sentinels),
		fmt.Sprintf("REDIS_BUS_PORT=%d", base+6+layout.MaxReaders+sentinels+clusterNodes),
		fmt.Sprintf("LOAD_PORT=%d", base+portsPerStack-2), fmt.Sprintf("PROMETHEUS_PORT=%d", base+portsPerStack-1),
		"PROMETHEUS_SERVER=" + layout.NoPrometheus,
	}
}

func freeBlock(t *testing.T) int {
	t.Helper()
	portBlock.CompareAndSwap(0, int64(firstTestPort+os.Getpid()%220*portsPerStack)) // apart from other test processes
next:
	for range 100 {
		base := int(portBlock.Add(portsPerStack))
		if base+portsPerStack > lastTestPort {
			portBlock.Store(firstTestPort)
			continue
		}
		// The UDP port with the number of the first TCP port reserves the block: other test processes cannot bind it, and
		// the stack does not use UDP.
		reservation, err := net.ListenPacket("udp", supervisor.Address(base))
		if err != nil {
			continue
		}
		for p := range portsPerStack {
			ln, err := net.Listen("tcp", supervisor.Address(base+p))
			if err != nil {
				reservation.Close()
				continue next
			}
			ln.Close()
		}
		t.Cleanup(func() { reservation.Close() })
		return base
	}
	t.Fatal("no block of free ports")
	return 0
}

// TestBlocksAreReserved starts the search at the same block, as another process could.
func TestBlocksAreReserved(t *testing.T) {
	first := freeBlock(t)
	portBlock.Store(int64(first - portsPerStack))
	if second := freeBlock(t); second == first {
		t.Errorf("ports from %d on were given to two tests at once", first)
	}
}

// testProgram returns the path of the test binary, which is the program when childEnvironment is set.
func testProgram(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// execute runs a command in a folder, with env added to the environment of the test.
func execute(t *testing.T, dir string, env []string, command ...string) (output string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
