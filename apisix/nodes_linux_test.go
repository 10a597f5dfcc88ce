package apisix

// Tests of nodes.sh and health.sh. They need Linux, where all of 127.0.0.0/8 is available and bash is recent.

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

// TestMain runs all tests of nodes.sh at once, on any number of cores: the script waits for seconds between two
// DNS lookups.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // a default; -parallel overrides it
	os.Exit(m.Run())
}

// container runs nodes.sh like the gateway's container, with a fake DNS and a fake APISIX.
type container struct {
	t     *testing.T
	dir   string
	port  int // port of the readers
	cmd   *exec.Cmd
	log   *syncBuffer
	ended chan struct{}
}

// fakeAPISIX saves the content of its file at the start, and records the signal that it receives. While a file
// named deaf exists it ignores QUIT, like the image's entrypoint.
const fakeAPISIX = `#!/usr/bin/env bash
cp "$APISIX_FILE" config
while [ -e deaf ]; do sleep 0.05; done
trap 'echo QUIT >signal; exit 7' QUIT
trap 'echo other >signal; exit 8' TERM INT
touch started
until [ -e die ]; do sleep 0.05; done
exit 9
`

// fakeGetent answers its n-th call with the file dns.n, or dns if there is none, in the format of getent ahostsv4.
// It hangs while a file named hang exists, and appends a line to calls for each look-up.
const fakeGetent = `#!/usr/bin/env bash
echo "$*" >>calls
while [ -e hang ]; do sleep 0.05; done
n=$(wc -l <calls)
cat "dns.$n" 2>/dev/null || cat dns 2>/dev/null || exit 2
`

func newContainer(t *testing.T) *container {
	t.Parallel()
	c := &container{t: t, dir: t.TempDir(), port: redistest.FreePort(t), log: new(syncBuffer), ended: make(chan struct{})}
	script, err := filepath.Abs("nodes.sh")
	if err != nil {
		t.Fatal(err)
	}
	c.executable("bin/getent", fakeGetent)
	c.executable("apisix", fakeAPISIX)
	c.write("run/old", "")
	c.cmd = exec.Command("bash", script, "./apisix")
	c.cmd.Dir, c.cmd.Stderr = c.dir, c.log
	c.cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(c.dir, "bin")+":"+os.Getenv("PATH"),
		"READER_PORT="+strconv.Itoa(c.port),
		"NODES_FILE="+c.path("run/apisix.yaml"), "APISIX_FILE="+c.path("conf.yaml"))
	return c
}

func (c *container) path(name string) string { return filepath.Join(c.dir, name) }

func (c *container) write(name, content string) {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.path(name), []byte(content), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) executable(name, content string) {
	c.t.Helper()
	c.write(name, content)
	if err := os.Chmod(c.path(name), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// dns atomically sets the addresses of the readers' name. Each is listed three times, once per socket type, like
// getent does.
func (c *container) dns(addresses ...string) {
	c.t.Helper()
	var b strings.Builder
	for _, kind := range []string{"STREAM", "DGRAM", "RAW"} {
		for _, address := range addresses {
			fmt.Fprintf(&b, "%s %s reader\n", address, kind)
		}
	}
	c.write("dns.new", b.String())
	if err := os.Rename(c.path("dns.new"), c.path("dns")); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) start() {
	c.t.Helper()
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // tests read the exit code with status
		close(c.ended)
	}()
	c.t.Cleanup(func() {
		c.write("die", "")
		<-c.ended
		if c.t.Failed() {
			c.t.Log(c.log)
		}
	})
}

// status waits for the exit of the script and returns its exit code.
func (c *container) status() int {
	c.t.Helper()
	eventually.True(c.t, "end of the script", func() bool {
		select {
		case <-c.ended:
			return true
		default:
			return false
		}
	})
	return c.cmd.ProcessState.ExitCode()
}

// listed returns the addresses that APISIX would use, or an error unless the file is complete and correct.
func (c *container) listed() ([]string, error) {
	content, err := os.ReadFile(c.path("conf.yaml"))
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile("config.yaml")
	if err != nil {
		return nil, err
	}
	if err := check(string(config), string(content)); err != nil {
		return nil, err
	}
	f, err := parse[routesFile](string(content))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, n := range f.Upstreams[0].Nodes {
		if n.Port != c.port {
			return nil, fmt.Errorf("port %d, want %d", n.Port, c.port)
		}
		list = append(list, n.Host)
	}
	return list, nil
}

func (c *container) want(addresses ...string) {
	c.t.Helper()
	eventually.Nil(c.t, func() error {
		list, err := c.listed()
		if err == nil && !slices.Equal(list, addresses) {
			err = fmt.Errorf("listed: %v, want %v", list, addresses)
		}
		return err
	})
}

// lookups waits until n more look-ups have started, so that n-1 of them are complete.
func (c *container) lookups(n int) {
	c.t.Helper()
	before := c.calls()
	eventually.True(c.t, "look-ups", func() bool { return c.calls() >= before+n })
}

// calls returns the number of look-ups so far.
func (c *container) calls() int {
	content, _ := os.ReadFile(c.path("calls")) // does not exist before the first call
	return strings.Count(string(content), "\n")
}

func (c *container) logged(text string) {
	c.t.Helper()
	eventually.True(c.t, fmt.Sprintf("line with %q in the log", text), func() bool {
		return strings.Contains(c.log.String(), text)
	})
}

// reader starts a reader on address that answers /ready with the result of status.
func (c *container) reader(address string, status func() int) *httptest.Server {
	c.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(c.port)))
	if err != nil {
		c.t.Fatal(err)
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/ready" {
			w.WriteHeader(status())
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})}}
	server.Start()
	c.t.Cleanup(server.Close)
	return server
}

func ready() int { return http.StatusOK }

// silent starts manySilent readers that accept connections but never answer. It returns their addresses and the
// listener of the first one.
func (c *container) silent() ([]string, *net.TCPListener) {
	c.t.Helper()
	var addresses []string
	var first *net.TCPListener
	for i := range manySilent {
		addresses = append(addresses, host(firstSilent+i))
		ln, err := net.Listen("tcp", net.JoinHostPort(addresses[i], strconv.Itoa(c.port)))
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { ln.Close() })
		if i == 0 {
			first = ln.(*net.TCPListener)
		}
	}
	return addresses, first
}

const (
	firstSilent = 10
	manySilent  = 40               // probed one after another, at one second each, they take longer than patience
	patience    = 30 * time.Second // deadline of package eventually
)

func host(i int) string { return fmt.Sprintf("127.0.4.%d", i) }

// TestNodes checks the list while readers start and stop.
func TestNodes(t *testing.T) {
	c := newContainer(t)
	var loading sync.Mutex // held while the fourth reader loads
	loading.Lock()
	for i := 1; i <= 3; i++ {
		c.reader(host(i), ready)
	}
	c.reader(host(4), func() int {
		if !loading.TryLock() {
			return http.StatusServiceUnavailable
		}
		loading.Unlock()
		return http.StatusOK
	})
	c.dns(host(2), host(1))
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.want(host(1), host(2)) // sorted
	if started := read(t, c.path("config")); !strings.Contains(started, host(2)) {
		t.Errorf("APISIX started before its list was there:\n%s", started)
	}

	// From here on another goroutine checks every version of the file.
	var watching sync.WaitGroup
	stop := make(chan struct{})
	watching.Go(func() { c.watch(stop) })

	c.dns(host(3), host(2), host(1), host(4))
	c.want(host(1), host(2), host(3)) // the fourth is not ready
	loading.Unlock()
	c.want(host(1), host(2), host(3), host(4))
	loading.Lock() // a listed reader stays, because APISIX checks it
	c.dns(host(4), host(1))
	c.want(host(1), host(4))

	before, err := os.Stat(c.path("conf.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.dns(host(1), host(4)) // in another order
	c.lookups(2)
	if after, err := os.Stat(c.path("conf.yaml")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written again for the same readers (%v)", err)
	}
	close(stop)
	watching.Wait()
	loading.Unlock()
}

// watch polls the file like APISIX until stop is closed. Each version must be complete, a new file, and have a
// modification time in another second than the previous one.
func (c *container) watch(stop <-chan struct{}) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var last struct {
		info    os.FileInfo
		content string
	}
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		content, info, err := readOpen(c.path("conf.yaml"))
		if err != nil {
			c.t.Error(err)
			return
		}
		if content == last.content {
			continue
		}
		if _, err := parse[routesFile](content); err != nil || !strings.HasSuffix(content, "\n#END\n") {
			c.t.Errorf("incomplete file: %v", err)
		}
		if last.info != nil {
			if os.SameFile(last.info, info) {
				c.t.Error("the file was written in place, so APISIX can read an incomplete version")
			}
			if last.info.ModTime().Unix() == info.ModTime().Unix() {
				c.t.Error("two versions within one second, which APISIX cannot distinguish")
			}
		}
		last.content, last.info = content, info
	}
}

// readOpen returns the content and the identity of the same version of a file.
func readOpen(path string) (string, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	content, err := io.ReadAll(f)
	return string(content), info, err
}

// TestNodesWithoutAnswer checks that the list stays when a look-up fails or hangs.
func TestNodesWithoutAnswer(t *testing.T) {
	for name, breakDNS := range map[string]func(c *container){
		"an error":      func(c *container) { _ = os.Remove(c.path("dns")) },
		"an empty one":  func(c *container) { c.dns() },
		"rubbish":       func(c *container) { c.write("dns", "reader: not found\n::1 STREAM\n1.2.3 STREAM\n<html>\n") },
		"no end of one": func(c *container) { c.write("hang", "") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			server := c.reader(host(1), ready)
			c.reader(host(2), ready)
			c.dns(host(1), host(2))
			c.start()
			c.want(host(1), host(2))
			breakDNS(c)
			c.logged("reads still go to: " + host(1) + " " + host(2))
			c.lookups(1)
			c.want(host(1), host(2))
			if n := strings.Count(c.log.String(), "reads still go to"); n != 1 {
				t.Errorf("%d log lines for one failure, want 1", n)
			}
			_ = os.Remove(c.path("hang"))
			server.Close()
			c.dns(host(2))
			c.want(host(2))
		})
	}
}

// TestNodesIncompleteAnswer checks that a ready reader stays while some DNS answers lack it, and is removed when
// all do.
func TestNodesIncompleteAnswer(t *testing.T) {
	c := newContainer(t)
	c.cmd.Env = append(c.cmd.Env, "NODES_INTERVAL=0.1")
	for i := 1; i <= 3; i++ {
		c.reader(host(i), ready)
	}
	c.dns(host(1), host(3))
	incomplete := read(t, c.path("dns"))
	c.dns(host(1), host(2), host(3))
	for _, call := range []int{2, 3, 4, 5, 7, 8, 9, 10} { // fewer than max_absent in a row
		c.write(fmt.Sprint("dns.", call), incomplete)
	}
	c.start()
	c.want(host(1), host(2), host(3))
	eventually.True(t, "12 look-ups", func() bool { return c.calls() >= 12 })
	c.want(host(1), host(2), host(3))
	if n := strings.Count(c.log.String(), "reads go to the readers: "); n != 1 {
		t.Errorf("the list was written %d times", n)
	}
	c.dns(host(1), host(3))
	c.want(host(1), host(3))
}

// TestNodesReaderStops checks that a reader is removed at the first DNS answer without it if its /ready does not
// return 200.
func TestNodesReaderStops(t *testing.T) {
	for name, stop := range map[string]func(status *atomic.Int64, server *httptest.Server){
		"draining": func(status *atomic.Int64, _ *httptest.Server) { status.Store(http.StatusServiceUnavailable) },
		"gone":     func(_ *atomic.Int64, server *httptest.Server) { server.Close() },
		"silent":   func(status *atomic.Int64, _ *httptest.Server) { status.Store(0) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			var status atomic.Int64 // 0 for no answer
			status.Store(http.StatusOK)
			c.reader(host(1), ready)
			server := c.reader(host(2), func() int {
				if status.Load() == 0 {
					<-t.Context().Done()
				}
				return int(max(status.Load(), 200))
			})
			c.dns(host(1), host(2))
			c.start()
			c.want(host(1), host(2))
			stop(&status, server)
			before := c.calls()
			c.dns(host(1))
			c.want(host(1))
			// One look-up may have read the old answer, and one may have started after the list was written.
			if n := c.calls() - before; n > 3 {
				t.Errorf("the reader was removed after %d look-ups", n)
			}
		})
	}
}

// TestNodesSilentReaders checks that many silent readers do not delay the listing of a ready one.
func TestNodesSilentReaders(t *testing.T) {
	c := newContainer(t)
	silent, _ := c.silent()
	c.reader(host(1), ready)
	c.dns(host(1))
	c.start()
	c.want(host(1))
	c.reader(host(firstSilent+manySilent), ready)
	c.dns(append(silent, host(1), host(firstSilent+manySilent))...) // the last in order
	c.want(host(1), host(firstSilent+manySilent))
}

// TestNodesNoneAtStart checks that APISIX starts without readers, and that readers are listed although none of
// them is ready.
func TestNodesNoneAtStart(t *testing.T) {
	c := newContainer(t)
	c.reader(host(1), func() int { return http.StatusServiceUnavailable })
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.want()
	c.logged("reads still go to: none")
	c.dns(host(1), host(2)) // the second does not listen
	c.want(host(1), host(2))
}

// TestNodesCannotWrite checks that the old file stays while a new one cannot be written.
func TestNodesCannotWrite(t *testing.T) {
	c := newContainer(t)
	c.reader(host(1), ready)
	c.dns(host(1))
	c.start()
	c.want(host(1))
	c.write("run/apisix.yaml.new/in-the-way", "")
	c.reader(host(2), ready)
	c.dns(host(1), host(2))
	c.logged("cannot write")
	c.want(host(1))
	if err := os.RemoveAll(c.path("run/apisix.yaml.new")); err != nil {
		t.Fatal(err)
	}
	c.want(host(1), host(2))
}

// TestNodesStop checks that a stop is forwarded as QUIT, nginx's graceful stop, and that APISIX's exit code is
// returned.
func TestNodesStop(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			c := newContainer(t)
			c.reader(host(1), ready)
			c.dns(host(1))
			c.start()
			eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
			if err := c.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if status := c.status(); status != 7 {
				t.Errorf("exit code %d, want APISIX's 7", status)
			}
			if got := strings.TrimSpace(read(t, c.path("signal"))); got != "QUIT" {
				t.Errorf("APISIX got %s", got)
			}
			if strings.Contains(c.log.String(), "by itself") {
				t.Error("the log reports an orderly stop as a failure")
			}
		})
	}
}

// TestNodesStopBesideSilentReaders checks that a stop is forwarded at once while silent readers are probed.
func TestNodesStopBesideSilentReaders(t *testing.T) {
	c := newContainer(t)
	silent, first := c.silent()
	c.reader(host(1), ready)
	c.dns(host(1))
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.dns(append(silent, host(1))...)
	if err := first.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := first.Accept()
	if err != nil {
		t.Fatalf("no silent reader was probed: %v", err)
	}
	defer conn.Close()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "signal for APISIX", func() bool { return exists(c.path("signal")) })
	if status := c.status(); status != 7 {
		t.Errorf("exit code %d, want APISIX's 7", status)
	}
}

// TestNodesStopBeforeStart checks that APISIX is not started after a stop.
func TestNodesStopBeforeStart(t *testing.T) {
	c := newContainer(t)
	c.write("hang", "")
	c.start()
	eventually.True(t, "first look-up", func() bool { return c.calls() == 1 })
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := c.status(); status != 0 {
		t.Errorf("exit code %d, want 0", status)
	}
	if exists(c.path("config")) {
		t.Error("APISIX was started")
	}
}

// TestNodesUpdaterDies checks that the container stops when the process that updates the list has died.
func TestNodesUpdaterDies(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	pid := c.cmd.Process.Pid
	var keeper int
	for child := range strings.FieldsSeq(read(t, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))) {
		if strings.Contains(read(t, "/proc/"+child+"/cmdline"), "nodes.sh") { // a fork of the script
			keeper, _ = strconv.Atoi(child)
		}
	}
	if keeper == 0 {
		t.Fatal("no process updates the list")
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := c.status(); status != 7 {
		t.Errorf("exit code %d, want APISIX's 7 after a QUIT", status)
	}
	c.logged("updates the list of readers died")
}

// TestNodesStopEarly checks that a stop is repeated if it arrives while the image's entrypoint still runs.
func TestNodesStopEarly(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	c.write("deaf", "")
	c.start()
	eventually.True(t, "start of the entrypoint", func() bool { return exists(c.path("config")) })
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(c.path("deaf")); err != nil {
		t.Fatal(err)
	}
	if status := c.status(); status != 7 {
		t.Errorf("exit code %d, want APISIX's 7", status)
	}
}

// TestNodesStopWhileStarting checks that a stop that arrives after APISIX was started, but before the script has noted its
// process, reaches APISIX too. A trap of bash holds the script there.
func TestNodesStopWhileStarting(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	const hold = `set -T; trap 'case $BASH_COMMAND in gateway=\$!) touch held; sleep 0.5 ;; esac' DEBUG; . "$0" "$@"`
	c.cmd.Args = slices.Insert(c.cmd.Args, 1, "-c", hold)
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("held")) })
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := c.status(); status != 7 {
		t.Errorf("exit code %d, want APISIX's 7", status)
	}
}

// TestNodesAPISIXDies checks that the container stops with APISIX's exit code.
func TestNodesAPISIXDies(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.write("die", "")
	if status := c.status(); status != 9 {
		t.Errorf("exit code %d, want APISIX's 9", status)
	}
	c.logged("APISIX exited with status 9")
}

// TestNodesCannotStart checks that APISIX is not started without its file.
func TestNodesCannotStart(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	if err := os.RemoveAll(c.path("run")); err != nil {
		t.Fatal(err)
	}
	c.start()
	if status := c.status(); status == 0 {
		t.Error("exit code 0")
	}
	if exists(c.path("config")) || exists(c.path("started")) {
		t.Error("APISIX was started without its file")
	}
}

func TestHealth(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		want   bool
	}{
		"a reader answers":       {http.StatusOK, true},
		"no reader":              {http.StatusServiceUnavailable, false},
		"APISIX drops the route": {http.StatusNotFound, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/health" {
					t.Errorf("request for %s, want /health", r.URL.Path)
				}
				w.WriteHeader(test.status)
			}))
			defer server.Close()
			if err := health(server.Listener); (err == nil) != test.want {
				t.Errorf("healthy: %t, want %t", err == nil, test.want)
			}
		})
	}
	t.Run("nobody accepts", func(t *testing.T) {
		t.Parallel()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		var failed *exec.ExitError
		if err := health(ln); !errors.As(err, &failed) {
			t.Errorf("a gateway that does not answer counts as healthy (%v)", err)
		}
		ln.Close()
		if err := health(ln); !errors.As(err, &failed) {
			t.Errorf("a gateway that does not run counts as healthy (%v)", err)
		}
	})
}

// TestHealthFullQueue checks that the health check times out if the gateway's accept queue is full.
func TestHealthFullQueue(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "full queue", func() bool {
		conn, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err != nil
	})
	ended := make(chan error, 1)
	go func() { ended <- health(ln) }()
	eventually.True(t, "end of the health check", func() bool { return len(ended) == 1 })
	var failed *exec.ExitError
	if err := <-ended; !errors.As(err, &failed) {
		t.Errorf("a gateway with a full accept queue counts as healthy (%v)", err)
	}
}

func health(ln net.Listener) error {
	cmd := exec.Command("bash", "health.sh")
	cmd.Env = append(os.Environ(), "GATEWAY_PORT="+strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	return cmd.Run()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// syncBuffer is a buffer that is safe for concurrent use.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
