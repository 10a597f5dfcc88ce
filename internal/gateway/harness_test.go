package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/redistest"
)

// patience is the timeout of every wait in the tests.
const patience = 20 * time.Second

// processReader is the environment variable that turns this test binary into a reader.
const processReader = "GATEWAY_TEST_READER"

func TestMain(m *testing.M) {
	if addr := os.Getenv(processReader); addr != "" {
		fmt.Fprintln(os.Stderr, "reader:", http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "post "+r.URL.Query().Get("id"))
		})))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// gateway is a running gateway.
type gateway struct {
	addr, metrics string
	logs          *logtest.Buffer
	stop          func() error // stops the gateway and returns the result of Run
}

func start(t *testing.T, cfg Config) *gateway {
	t.Helper()
	logs := new(logtest.Buffer)
	cfg.Logger = slog.New(slog.NewTextHandler(logs, nil))
	cfg.Host = "127.0.0.1"
	front, back := make(chan string, 1), make(chan string, 1)
	cfg.Listening = func(addr string) { front <- addr }
	cfg.MetricsListening = func(addr string) { back <- addr }
	if cfg.CheckInterval == 0 {
		cfg.CheckInterval = 20 * time.Millisecond
	}
	if cfg.ReloadInterval == 0 {
		cfg.ReloadInterval = 5 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	g := &gateway{logs: logs, stop: sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return fmt.Errorf("Run has not returned %v after its context ended", patience)
		}
	})}
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for range 2 {
		select {
		case g.addr = <-front:
		case g.metrics = <-back:
		case <-time.After(patience):
			t.Fatal("the gateway is not listening")
		}
	}
	return g
}

// awaitReady waits until exactly n readers are ready.
func (g *gateway) awaitReady(t *testing.T, n int) {
	t.Helper()
	eventually.True(t, fmt.Sprintf("%d readers are ready", n), func() bool { return g.readiness(t).Ready == n })
}

type readiness struct {
	code    int
	Status  string
	Readers int
	Ready   int
	Reasons []string
}

func (g *gateway) readiness(t *testing.T) readiness {
	t.Helper()
	res, body := do(t, http.MethodGet, "http://"+g.metrics+"/ready", nil)
	r := readiness{code: res.StatusCode}
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("GET /ready: %v: %s", err, body)
	}
	return r
}

func (g *gateway) url(path string) string { return "http://" + g.addr + path }

func (g *gateway) families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	res, body := do(t, http.MethodGet, "http://"+g.metrics+"/apisix/prometheus/metrics", nil)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s", res.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// samples returns the values of a metric by label set, formatted as "a=x b=y" and sorted by name. The value of a histogram
// is its count.
func samples(f *dto.MetricFamily) map[string]float64 {
	values := make(map[string]float64)
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		values[strings.Join(labels, " ")] = value
	}
	return values
}

// client does not decompress bodies or follow redirects.
var client = &http.Client{
	Timeout:       patience,
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func do(t *testing.T, method, url string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	res, body, err := fetch(method, url, header, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

func fetch(method, url string, header http.Header, body io.Reader) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return res, got, err
}

// reader is a reader in this process. The test controls its readiness.
type reader struct {
	*httptest.Server
	addr     string
	notReady atomic.Bool
	reads    atomic.Int64 // requests other than GET /ready
}

// newReader starts a reader whose handler is h. A nil handler answers 200 with the address of the reader.
func newReader(t *testing.T, h http.HandlerFunc) *reader {
	t.Helper()
	r := new(reader)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/ready" && r.notReady.Load():
			http.Error(w, "loading", http.StatusServiceUnavailable)
		case req.URL.Path == "/ready":
		case h != nil:
			r.reads.Add(1)
			h(w, req)
		default:
			r.reads.Add(1)
			io.WriteString(w, r.addr)
		}
	}))
	r.addr = r.Listener.Addr().String()
	t.Cleanup(r.Close)
	return r
}

func newReaders(t *testing.T, n int) ([]*reader, []string) {
	t.Helper()
	readers, addrs := make([]*reader, n), make([]string, n)
	for i := range readers {
		readers[i] = newReader(t, nil)
		addrs[i] = readers[i].addr
	}
	return readers, addrs
}

// faulty is a reader that answers GET /ready with 200 and passes the connections of all other requests to a function.
type faulty struct {
	addr  string
	ln    net.Listener
	tries atomic.Int64
	head  atomic.Pointer[string] // header of the last request other than GET /ready
}

func newFaulty(t *testing.T, handle func(net.Conn)) *faulty {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &faulty{addr: ln.Addr().String(), ln: ln}
	ended := make(chan struct{})
	var conns sync.WaitGroup
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				conns.Wait()
				close(ended)
				return
			}
			conns.Go(func() {
				defer conn.Close()
				head := readHead(conn)
				if strings.HasPrefix(head, "GET /ready") {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				if head != "" {
					f.head.Store(&head)
					f.tries.Add(1)
					handle(conn)
				}
			})
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return f
}

// readHead reads a message up to the empty line after its header, or to the end of r.
func readHead(r io.Reader) string {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte // byte by byte, because the body must stay unread
		if _, err := io.ReadFull(r, b[:]); err != nil {
			break
		}
		head = append(head, b[0])
	}
	return string(head)
}

// process is a reader that runs as a separate process.
type process struct {
	addr string
	cmd  *exec.Cmd
}

func startProcess(t *testing.T, addr string) *process {
	t.Helper()
	p := &process{addr: addr, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), processReader+"="+addr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// kill sends SIGKILL to the process.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// freeAddr returns an address that is reserved for the caller until the test ends.
func freeAddr(t *testing.T) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t)))
}
