package load

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
)

// fakeStack stands in for gateway and writer.
type fakeStack struct {
	mu      sync.Mutex
	bodies  map[string][]byte
	answer  atomic.Value // func(http.ResponseWriter) that replaces the answer of a read, nil for none
	refuse  atomic.Bool  // writes are answered with 503
	imports atomic.Int64
	token   string
}

func (f *fakeStack) put(line []byte) {
	p, err := post.Decode(line)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies[p.ID] = p.Encode(time.Now()).Body
}

func (f *fakeStack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method == http.MethodPost && f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/import":
		f.imports.Add(1)
		for line := range strings.Lines(string(body)) {
			f.put([]byte(strings.TrimSpace(line)))
		}
	case "/create":
		if f.refuse.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		f.put([]byte(strings.TrimSpace(string(body))))
		w.WriteHeader(http.StatusCreated)
	case "/post":
		if answer, _ := f.answer.Load().(func(http.ResponseWriter)); answer != nil {
			answer(w)
			return
		}
		f.mu.Lock()
		found := f.bodies[r.URL.Query().Get("id")]
		f.mu.Unlock()
		if found == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(found)
	}
}

func start(t *testing.T, f *fakeStack, cfg Config) (*Generator, func()) {
	t.Helper()
	f.bodies = make(map[string][]byte)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	cfg.Gateway, cfg.Writer = srv.URL, srv.URL
	g := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	stop := func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return g, stop
}

func TestGenerator(t *testing.T) {
	f := &fakeStack{token: "secret"}
	g, stop := start(t, f, Config{Reads: 2000, Writes: 200, Token: "secret"})
	eventually.True(t, "reads and writes", func() bool { c := g.Counts(); return c.Reads > 200 && c.Writes > 20 })
	if c := g.Counts(); c.Failed() != 0 || c.Refused != 0 || f.imports.Load() != 1 {
		t.Errorf("%+v, %d imports, want no failures and one import", c, f.imports.Load())
	}
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter)
		count  func(Counts) int64
	}{
		{"5xx", func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, func(c Counts) int64 { return c.Answered }},
		{"404", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, func(c Counts) int64 { return c.Missing }},
		{"wrong bytes", func(w http.ResponseWriter) { io.WriteString(w, `{"id":"demo-1","hash":"00"}`) }, func(c Counts) int64 { return c.Wrong }},
		{"another status", func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }, func(c Counts) int64 { return c.Wrong }},
		{"no answer", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, func(c Counts) int64 { return c.NoAnswer }},
	} {
		before := g.Counts()
		f.answer.Store(tt.answer)
		eventually.True(t, tt.name+" is counted", func() bool { return tt.count(g.Counts()) > tt.count(before)+3 })
		f.answer.Store((func(http.ResponseWriter))(nil))
	}
	f.refuse.Store(true)
	eventually.True(t, "refused writes are counted", func() bool { return g.Counts().Refused > 3 })
	stop()
	c := g.Counts()
	if c.Failed() != c.Answered+c.NoAnswer+c.Missing+c.Wrong || c.Failed() >= c.Reads {
		t.Errorf("%+v", c)
	}
}

// The rate is bounded from above: a stall is not made up for.
func TestRateIsBounded(t *testing.T) {
	f := new(fakeStack)
	begun := time.Now()
	g, stop := start(t, f, Config{Reads: 100})
	eventually.True(t, "reads", func() bool { return g.Counts().Reads >= 50 })
	stop()
	elapsed := time.Since(begun).Seconds()
	if c := g.Counts(); float64(c.Reads) > 100*elapsed+readWorkers || c.Writes != 0 {
		t.Errorf("%+v in %.2f s at 100 reads/s and no writes", c, elapsed)
	}
}

// As a process it has metrics, and ends with its context.
func TestRun(t *testing.T) {
	f := &fakeStack{bodies: make(map[string][]byte)}
	srv := httptest.NewServer(f)
	defer srv.Close()
	addr := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	cfg := Config{
		Common:  daemon.Common{Host: "127.0.0.1", Logger: slog.New(slog.DiscardHandler), Listening: func(a string) { addr <- a }},
		Gateway: srv.URL + "/", Writer: srv.URL, Reads: 1000, Writes: 100,
	}
	go func() { ended <- Run(ctx, cfg) }()
	base := "http://" + <-addr
	eventually.True(t, "the metrics count reads and writes", func() bool {
		res, err := http.Get(base + "/metrics")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return strings.Contains(string(text), `load_writes_total{result="ok"} `) && !strings.Contains(string(text), `load_reads_total{result="ok"} 0`)
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cfg.Reads = MaxReads + 1
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "LOAD_READS=5001") {
		t.Errorf("a rate that is too high: %v", err)
	}
}
