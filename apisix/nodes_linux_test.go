package apisix

// The tests of nodes.sh and health.sh: Linux alone has all of 127.0.0.0/8, and its bash.

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

// TestMain runs all tests of nodes.sh at once, however few the cores: the script waits for seconds between
// two look-ups.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // a default; -parallel overrides it
	os.Exit(m.Run())
}

// container runs nodes.sh as the gateway's container does, with a fake DNS and a fake APISIX.
type container struct {
	t     *testing.T
	dir   string
	port  int // of the readers
	cmd   *exec.Cmd
	log   *syncBuffer
	ended chan struct{}
}

// fakeAPISIX keeps what it found in its file at the start, and says what signal it got. While there
// is a file deaf it hears no QUIT, as bash does by itself.
const fakeAPISIX = `#!/usr/bin/env bash
cp "$APISIX_FILE" config
while [ -e deaf ]; do sleep 0.05; done
trap 'echo QUIT >signal; exit 7' QUIT
trap 'echo other >signal; exit 8' TERM INT
touch started
until [ -e die ]; do sleep 0.05; done
exit 9
`

// fakeGetent answers its n-th call with the file dns.n or else dns, in the form of getent ahostsv4; it
// hangs while there is a file hang. Each line of calls is a look-up.
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

// dns makes these the addresses of the readers' name. They are replaced at once, and each comes
// three times, as getent lists one for each kind of socket.
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
		_ = c.cmd.Wait() // its exit code is looked at
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

// status waits for the end and returns the exit code.
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

// listed returns the addresses that APISIX would use. Anything but a whole, correct file fails.
func (c *container) listed() ([]string, error) {
	content, err := os.ReadFile(c.path("conf.yaml"))
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile("config.yaml")
	if err != nil {
		return nil, err
	}
	if err := judge(string(config), string(content)); err != nil {
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

// lookups waits for n more look-ups to begin, of which n-1 are then over.
func (c *container) lookups(n int) {
	c.t.Helper()
	before := c.calls()
	eventually.True(c.t, "look-ups", func() bool { return c.calls() >= before+n })
}

// calls returns the number of look-ups that began.
func (c *container) calls() int {
	content, _ := os.ReadFile(c.path("calls")) // none yet: no calls
	return strings.Count(string(content), "\n")
}

func (c *container) logged(text string) {
	c.t.Helper()
	eventually.True(c.t, fmt.Sprintf("line with %q in the log", text), func() bool {
		return strings.Contains(c.log.String(), text)
	})
}

// reader answers /ready on address with what status says.
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

// silent starts manySilent readers that accept connections and never answer. It returns their
// addresses and the listener of the first.
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
	manySilent  = 40               // asked one after another, a second each, they take longer than patience
	patience    = 30 * time.Second // that of eventually
)

func host(i int) string { return fmt.Sprintf("127.0.4.%d", i) }

// TestNodes follows readers as they come and go.
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

	// From here on somebody looks at the file all the time.
	var watching sync.WaitGroup
	stop := make(chan struct{})
	watching.Go(func() { c.watch(stop) })

	c.dns(host(3), host(2), host(1), host(4))
	c.want(host(1), host(2), host(3)) // the fourth has not loaded its posts
	loading.Unlock()
	c.want(host(1), host(2), host(3), host(4))
	loading.Lock() // a reader that is listed stays: APISIX checks it
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

// watch looks at the file as APISIX does until stop is closed: each version must be whole, a file of
// its own, and from another second than the last.
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
			c.t.Errorf("half a file: %v", err)
		}
		if last.info != nil {
			if os.SameFile(last.info, info) {
				c.t.Error("the file was written in place: APISIX can read half of it")
			}
			if last.info.ModTime().Unix() == info.ModTime().Unix() {
				c.t.Error("two versions within one second: APISIX takes them for one")
			}
		}
		last.content, last.info = content, info
	}
}

// readOpen returns a file's content and identity, of one and the same version.
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

// TestNodesWithoutAnswer keeps the list through whatever the look-up does.
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
			c.logged("still listed: " + host(1) + " " + host(2))
			c.lookups(1)
			c.want(host(1), host(2))
			if n := strings.Count(c.log.String(), "still listed"); n != 1 {
				t.Errorf("%d lines in the log about one failure", n)
			}
			_ = os.Remove(c.path("hang"))
			server.Close()
			c.dns(host(2))
			c.want(host(2))
		})
	}
}

// TestNodesIncompleteAnswer keeps a ready reader that some answers of DNS leave out, and removes it
// when they all do.
func TestNodesIncompleteAnswer(t *testing.T) {
	c := newContainer(t)
	c.cmd.Env = append(c.cmd.Env, "NODES_INTERVAL=0.1")
	for i := 1; i <= 3; i++ {
		c.reader(host(i), ready)
	}
	c.dns(host(1), host(3))
	incomplete := read(t, c.path("dns"))
	c.dns(host(1), host(2), host(3))
	for _, call := range []int{2, 3, 4, 5, 7, 8, 9, 10} { // never as many in a row as the script believes
		c.write(fmt.Sprint("dns.", call), incomplete)
	}
	c.start()
	c.want(host(1), host(2), host(3))
	eventually.True(t, "12 look-ups", func() bool { return c.calls() >= 12 })
	c.want(host(1), host(2), host(3))
	if n := strings.Count(c.log.String(), "readers: "); n != 1 {
		t.Errorf("the list was written %d times", n)
	}
	c.dns(host(1), host(3))
	c.want(host(1), host(3))
}

// TestNodesReaderStops removes a reader with the first answer of DNS that leaves it out, if its own
// /ready does not say 200 either.
func TestNodesReaderStops(t *testing.T) {
	for name, stop := range map[string]func(status *atomic.Int64, server *httptest.Server){
		"draining": func(status *atomic.Int64, _ *httptest.Server) { status.Store(http.StatusServiceUnavailable) },
		"gone":     func(_ *atomic.Int64, server *httptest.Server) { server.Close() },
		"silent":   func(status *atomic.Int64, _ *httptest.Server) { status.Store(0) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			var status atomic.Int64 // 0 does not answer
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
			// One look-up may have read the answer before, and one may have begun after the list was written.
			if n := c.calls() - before; n > 3 {
				t.Errorf("the reader left after %d look-ups", n)
			}
		})
	}
}

// TestNodesSilentReaders lists a ready reader without waiting for each silent one.
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

// TestNodesNoneAtStart starts APISIX without readers; those that come are used ready or not, when
// none of them is.
func TestNodesNoneAtStart(t *testing.T) {
	c := newContainer(t)
	c.reader(host(1), func() int { return http.StatusServiceUnavailable })
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.want()
	c.logged("still listed: none")
	c.dns(host(1), host(2)) // nobody listens on the second
	c.want(host(1), host(2))
}

// TestNodesCannotWrite keeps the old file while a new one cannot be written.
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

// TestNodesStop passes a stop on as nginx's graceful one, and APISIX's exit code back.
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
				t.Error("the log takes an orderly stop for a failure")
			}
		})
	}
}

// TestNodesStopBesideSilentReaders passes a stop on while readers that say nothing are asked.
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
		t.Fatalf("no silent reader was asked: %v", err)
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

// TestNodesStopBeforeStart does not start APISIX after a stop.
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

// TestNodesKeeperDies ends the container when nobody keeps the list any more.
func TestNodesKeeperDies(t *testing.T) {
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
		t.Fatal("no process keeps the list")
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := c.status(); status != 7 {
		t.Errorf("exit code %d, want APISIX's 7 after a QUIT", status)
	}
	c.logged("keeps the list of readers died")
}

// TestNodesStopEarly repeats a stop that comes while the image's entrypoint still runs.
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

// TestNodesAPISIXDies ends the container with APISIX's exit code.
func TestNodesAPISIXDies(t *testing.T) {
	c := newContainer(t)
	c.dns(host(1))
	c.start()
	eventually.True(t, "start of APISIX", func() bool { return exists(c.path("started")) })
	c.write("die", "")
	if status := c.status(); status != 9 {
		t.Errorf("exit code %d, want APISIX's 9", status)
	}
	c.logged("APISIX ended by itself with status 9")
}

// TestNodesCannotStart does not run APISIX without its file.
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
					t.Errorf("asked for %s", r.URL.Path)
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
			t.Errorf("a gateway that says nothing is healthy (%v)", err)
		}
		ln.Close()
		if err := health(ln); !errors.As(err, &failed) {
			t.Errorf("a gateway that is not there is healthy (%v)", err)
		}
	})
}

// TestHealthFullQueue gives up on a gateway whose queue of connections is full.
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
		t.Errorf("a gateway whose queue is full is healthy (%v)", err)
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

// syncBuffer collects what a process writes while the test reads it.
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
