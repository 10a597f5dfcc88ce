package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/internal/daemon"
	"heavy-read-api/internal/failover"
	"heavy-read-api/internal/gateway"
	"heavy-read-api/internal/reader"
	"heavy-read-api/internal/redisconfig"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/workload"
	"heavy-read-api/internal/writer"
)

// stack is a stack within this process. It implements target.Runtime.
type stack struct {
	t         *testing.T
	redis     *redistest.Server
	sentinel  *redistest.SentinelDeployment // instead of redis; may be nil
	addresses target.Addresses
	nodes     string            // path of the gateway's nodes file
	onFault   func(what string) // called when something was killed or a reader was added; may be nil

	mu      sync.Mutex // guards the fields below
	readers []*instance
}

type instance struct {
	name, addr string
	stop       func()
}

// serve runs a service until stop, or the end of the test.
func serve(t *testing.T, port int, run func(context.Context, daemon.Common) error) (addr string, stop func()) {
	t.Helper()
	listening, ended := make(chan string, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		ended <- run(ctx, daemon.Common{Host: "127.0.0.1", Port: port, Listening: func(addr string) { listening <- addr }})
	}()
	select {
	case addr = <-listening:
	case err := <-ended:
		cancel()
		t.Fatalf("a service ended: %v", err)
	}
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return addr, stop
}

// settings returns the addresses of the stack's Redis.
func (s *stack) settings() redisconfig.Redis {
	if s.sentinel != nil {
		return redisconfig.Redis{Addr: s.sentinel.Addrs(), MasterName: redistest.SentinelName}
	}
	return redisconfig.Redis{Addr: []string{s.redis.Addr()}}
}

func (s *stack) reader(name string, port int) *instance {
	addr, stop := serve(s.t, port, func(ctx context.Context, c daemon.Common) error {
		return reader.Run(ctx, reader.Config{Data: redisconfig.Data{Common: c, Redis: s.settings(), Drain: -1}, PodID: name})
	})
	eventually.Nil(s.t, func() error {
		res, err := http.Get("http://" + addr + "/ready")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return &instance{name, addr, stop}
}

func start(t *testing.T, readers int) *stack {
	t.Helper()
	redistest.Require(t)
	s := &stack{t: t, redis: redistest.Start(t)}
	s.start(readers)
	return s
}

func startSentinel(t *testing.T, readers int) *stack {
	t.Helper()
	redistest.Require(t)
	s := &stack{t: t, sentinel: redistest.StartSentinel(t, redistest.SentinelOptions{Quick: true})}
	s.start(readers)
	return s
}

// start starts the rest of the stack.
func (s *stack) start(readers int) {
	t := s.t
	t.Helper()
	s.nodes = filepath.Join(t.TempDir(), "nodes")
	s.addresses.Writer, _ = serve(t, 0, func(ctx context.Context, c daemon.Common) error {
		return writer.Run(ctx, writer.Config{Data: redisconfig.Data{Common: c, Redis: s.settings(), Drain: -1}})
	})
	s.addresses.Direct = s.reader("reader-direct", 0).addr
	for range readers {
		s.add()
	}
	s.list()
	metrics := make(chan string, 1)
	s.addresses.Gateway, _ = serve(t, 0, func(ctx context.Context, c daemon.Common) error {
		return gateway.Run(ctx, gateway.Config{Common: c, NodesFile: s.nodes, ReloadInterval: 20 * time.Millisecond, CheckInterval: 50 * time.Millisecond, MetricsListening: func(addr string) { metrics <- addr }})
	})
	s.addresses.GatewayMetrics = <-metrics
}

func (s *stack) add() {
	s.readers = append(s.readers, s.reader(fmt.Sprint("reader-", len(s.readers)+1), 0))
}

// list writes the readers into the gateway's nodes file.
func (s *stack) list() {
	var b bytes.Buffer
	for _, r := range s.readers {
		fmt.Fprintln(&b, r.addr)
	}
	if err := os.WriteFile(s.nodes+".new", b.Bytes(), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.nodes+".new", s.nodes); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) Name() string { return "in one process" }

func (s *stack) Readers(context.Context) ([]target.Reader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []target.Reader
	for _, r := range s.readers {
		out = append(out, target.Reader{Name: r.name, Addr: r.addr})
	}
	return out, nil
}

func (s *stack) Redis(context.Context) (target.RedisServer, error) {
	if s.sentinel != nil {
		return target.RedisServer{Addr: s.sentinel.Primary().Addr()}, nil
	}
	return target.RedisServer{Addr: s.redis.Addr()}, nil
}

func (s *stack) Processes(context.Context) ([]int, error) { return []int{os.Getppid()}, nil }

func (s *stack) Primary(context.Context) (string, error) {
	if s.sentinel == nil {
		return "", target.ErrNoFailover
	}
	s.sentinel.WaitStable()
	return s.sentinel.Primary().Addr(), nil
}

func (s *stack) Failover(ctx context.Context) error {
	return failover.Run(ctx, failover.Config{Redis: s.settings()})
}

func (s *stack) Scale(ctx context.Context, n int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.readers) < n {
		s.add()
		s.notify("a reader is added")
	}
	gone := s.readers[n:]
	s.readers = s.readers[:n:n]
	s.list()
	for _, r := range gone {
		r.stop()
	}
	return nil
}

func (s *stack) Kill(_ context.Context, name string) (func(context.Context) error, error) {
	restart := func() { s.redis.Restart() }
	if s.sentinel != nil {
		server := s.sentinel.Primary()
		server.Kill()
		restart = func() { server.Restart() }
	} else if name == target.Redis {
		s.redis.Kill()
	} else {
		i := slices.IndexFunc(s.readers, func(r *instance) bool { return r.name == name })
		r := s.readers[i]
		r.stop()
		restart = func() {
			_, port, _ := net.SplitHostPort(r.addr)
			n, _ := strconv.Atoi(port)
			s.readers[i] = s.reader(name, n)
		}
	}
	restart = sync.OnceFunc(restart)
	s.notify(name + " is dead")
	return func(ctx context.Context) error {
		if ctx.Err() == nil {
			restart()
		}
		return ctx.Err()
	}, nil
}

func (s *stack) notify(what string) {
	if s.onFault != nil {
		s.onFault(what)
	}
}

// tiny is a plan that takes seconds.
func tiny() plan {
	return plan{
		rounds: 1, round: time.Second, steadyRounds: 1, steady: 200 * time.Millisecond, propagation: 300 * time.Millisecond, floor: 200 * time.Millisecond,
		revisits: 100, settle: 600 * time.Millisecond, posts: 2000, connections: 8, threads: 1, rate: 300, rateGiven: true, failovers: 1,
		probe: 200 * time.Millisecond, ownRound: time.Second, starts: 1, updates: 1500 * time.Millisecond, idle: 50, fanout: 300 * time.Millisecond, subscribers: []int{4, 12}, fanoutRates: []int{100}, capacity: time.Second, audiences: []int{2, 12}, limit: 5 * time.Minute,
	}
}

// quiet is a meter of an otherwise idle machine.
func quiet(context.Context, []int, time.Duration) func() machine.Activity {
	return func() machine.Activity { return machine.Activity{IdleBefore: 1} }
}

// recorder records the progress of a run.
type recorder struct {
	text strings.Builder
	part func(title string) // called for each part; may be nil
}

func (r *recorder) Part(title string) {
	fmt.Fprintln(&r.text, title)
	if r.part != nil {
		r.part(title)
	}
}
func (r *recorder) Step(what string, _ time.Duration) { fmt.Fprintln(&r.text, " ", what) }
func (r *recorder) Say(format string, args ...any)    { fmt.Fprintf(&r.text, "    "+format+"\n", args...) }

func needWrk(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed")
	}
}

// These parts run on a real stack, and the report has the results of each.
func TestRun(t *testing.T) {
	t.Parallel()
	needWrk(t)
	s := start(t, 2)
	progress := new(recorder)
	o := Options{Only: []string{Memory, Pipelining, Latency, Propagation, Bytes, Readers, Redis}}
	r, err := run(t.Context(), o, tiny(), s.addresses, s, progress, quiet)
	t.Log(progress.text.String())
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Memory; m == nil || !m.Imported || len(m.Readers) != 3 || m.Readers[0].Entries < 2000 || !m.Readers[2].Complete || m.Readers[1].After == 0 {
		t.Errorf("memory: %+v", r.Memory)
	}
	if len(r.Pipelined) < 2 || r.Pipelined[0].Rates[0] <= 0 || r.Pipelined[0].Name != report.LaneFast {
		t.Errorf("pipelining: %+v", r.Pipelined)
	}
	if len(r.Latency) != 2 || r.Latency[0].Rate != 300 || r.Latency[1].P50[0] <= 0 || r.Latency[1].Via != report.ViaGateway {
		t.Errorf("latency: %+v", r.Latency)
	}
	if p := r.Propagation; len(p) != 3 || p[0].Readers != 3 || p[2].Everywhere.Count == 0 || p[1].Everywhere.P50 < p[1].First.P50 {
		t.Errorf("propagation: %+v", p)
	}
	// A rate of 0 means that no rate kept the bound, which can happen on a slow machine.
	if w := r.HighestWrites; len(w) != 2 || w[0].Bound <= w[1].Bound || w[0].Rate < w[1].Rate {
		t.Errorf("the highest write rates: %+v", w)
	}
	if r.Floor == nil || r.Floor.Count != 40 || r.Floor.P50 <= 0 {
		t.Errorf("the floor: %+v", r.Floor)
	}
	if len(r.Bytes) != len(revisitShares) || r.Bytes[0].NotModified != 0 || r.Bytes[0].Saved() != 0 || r.Bytes[5].Saved() < 0.2 {
		t.Errorf("bytes: %+v", r.Bytes)
	}
	if f := r.Readers; f == nil || f.Requests < 300 || f.AddedAt <= f.KilledAt {
		t.Errorf("readers: %+v", f)
	}
	if f := r.Redis; f == nil || f.Requests < 100 || f.Down <= 0 || f.Converged < f.Writes || f.Writes < f.Down || len(f.Timeline.Events) != 2 {
		t.Errorf("Redis: %+v", f)
	}
	if len(r.Activity) != len(o.Only) || len(r.Failed) != 0 {
		t.Errorf("activity %+v, failed %+v", r.Activity, r.Failed)
	}
	if r.Checked.Bodies < 500 || r.Checked.Statuses < r.Checked.Bodies {
		t.Errorf("checked: %+v", r.Checked)
	}
	if len(s.readers) != 2 {
		t.Errorf("%d readers are left of 2", len(s.readers))
	}
	if text := r.Markdown(""); strings.Contains(text, "%!") || strings.Contains(text, "NaN") {
		t.Errorf("the report:\n%s", text)
	}
	if _, err := r.Plots(); err != nil {
		t.Error(err)
	}
	n, err := Remove(t.Context(), s.addresses)
	if err != nil || n != 2000 {
		t.Errorf("%d posts were deleted (%v), want the 2000", n, err)
	}
	eventually.Nil(t, func() error {
		status, err := target.ReaderStatus(t.Context(), s.addresses.Direct)
		if err == nil && status.Entries != 0 {
			err = fmt.Errorf("%d posts are left", status.Entries)
		}
		return err
	})
}

// The primary is killed, and then replaced by a planned failover.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := startSentinel(t, 2)
	progress := new(recorder)
	r, err := run(t.Context(), Options{Only: []string{Redis, Failover}}, tiny(), s.addresses, s, progress, quiet)
	t.Log(progress.text.String())
	if err != nil {
		t.Fatal(err)
	}
	if r.Redis != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "which the part failover measures") {
		t.Errorf("the part redis: %+v, %q", r.Redis, r.Notes)
	}
	if len(r.Failovers) != 2 {
		t.Fatalf("%+v", r.Failovers)
	}
	for i, f := range r.Failovers {
		if f.Planned != (i == 1) || f.From == f.To || f.Failed != 0 || f.Requests < 300 || f.Acknowledged < 200 || f.Out <= 0 || f.InSync < f.Out/2 {
			t.Errorf("%+v", f)
		}
	}
	if killed, planned := r.Failovers[0], r.Failovers[1]; killed.To != planned.From || killed.Out < 1 || planned.Lost != 0 {
		t.Errorf("killed: %+v, planned: %+v", killed, planned)
	}
	if len(r.Broken()) > 0 {
		t.Error(r.Broken())
	}
	eventually.Nil(t, func() error {
		status, err := target.ReaderStatus(t.Context(), s.addresses.Direct)
		if err == nil && status.Entries != int64(tiny().posts) {
			err = fmt.Errorf("%d posts, want %d after the others were deleted", status.Entries, tiny().posts)
		}
		return err
	})
}

// With a single Redis the report says why there is no failover.
func TestNoFailover(t *testing.T) {
	t.Parallel()
	s := start(t, 2)
	r, err := run(t.Context(), Options{Only: []string{Failover}}, tiny(), s.addresses, s, new(recorder), quiet)
	if err != nil || r.Failovers != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "make start REDIS=sentinel") {
		t.Errorf("%+v (%v), want a note", r, err)
	}
}

// One wrong body in five thousand ends the run; the results of earlier parts are kept.
func TestWrongAnswerFailsTheRun(t *testing.T) {
	t.Parallel()
	needWrk(t)
	s := start(t, 2)
	p := tiny()
	direct := s.addresses.Direct
	o := Options{Only: []string{Bytes}}
	if _, err := run(t.Context(), o, p, s.addresses, s, new(recorder), quiet); err != nil {
		t.Fatal(err)
	}
	var corrupt atomic.Bool
	var answers atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: direct})
	proxy.ModifyResponse = func(res *http.Response) error {
		if !corrupt.Load() || !strings.HasPrefix(res.Request.URL.Path, "/post") || answers.Add(1)%5000 != 0 {
			return nil
		}
		body, err := io.ReadAll(res.Body)
		if err == nil && len(body) > 0 {
			body[len(body)/2] ^= 1
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		return err
	}
	tampering := httptest.NewServer(proxy)
	defer tampering.Close()
	s.addresses.Direct = tampering.Listener.Addr().String()
	p.revisits = 1000
	progress := &recorder{part: func(title string) { corrupt.Store(strings.Contains(title, "304")) }}
	r, err := run(t.Context(), Options{Only: []string{Latency, Bytes, Readers}}, p, s.addresses, s, progress, quiet)
	var wrong *load.WrongError
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v, want a WrongError", err)
	}
	if len(r.Latency) != 2 || r.Bytes != nil || r.Readers != nil || len(r.Failed) != 1 || r.Failed[0].Name != Bytes {
		t.Errorf("got %+v, want only the latency, which was measured before the failed part", r)
	}
}

// A part that fails does not discard the results of the others, and the report names it.
func TestFailedPart(t *testing.T) {
	s := start(t, 2)
	unkillable := &broken{stack: s}
	r, err := run(t.Context(), Options{Only: []string{Bytes, Readers, Redis}}, tiny(), s.addresses, unkillable, new(recorder), quiet)
	if err == nil || !strings.Contains(err.Error(), "readers: no permission") {
		t.Errorf("got %v, want the error of the part", err)
	}
	if r == nil || len(r.Bytes) != len(revisitShares) || r.Readers != nil || r.Redis == nil || len(r.Failed) != 1 || r.Failed[0].Name != Readers {
		t.Errorf("got %+v, want the parts before and after the failed one", r)
	}
}

// A read that fails is not a wrong answer: it fails its part, and later parts run.
func TestFailedRead(t *testing.T) {
	s := start(t, 2)
	gateway := s.addresses.Gateway
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer busy.Close()
	progress := &recorder{}
	s.addresses.Gateway = busy.Listener.Addr().String()
	r, err := run(t.Context(), Options{Only: []string{Latency, Bytes}}, tiny(), s.addresses, s, progress, quiet)
	s.addresses.Gateway = gateway
	var wrong *load.WrongError
	if !errors.As(err, &wrong) || !wrong.Failed || len(r.Failed) != 1 || r.Failed[0].Name != Latency || len(r.Bytes) != len(revisitShares) {
		t.Errorf("got %+v (%v), want a failed latency, and the bytes", r, err)
	}
}

// broken is a stack whose readers cannot be killed.
type broken struct{ *stack }

func (b *broken) Kill(ctx context.Context, name string) (func(context.Context) error, error) {
	if name != target.Redis {
		return nil, errors.New("no permission")
	}
	return b.stack.Kill(ctx, name)
}

// A part that was measured on a busy machine is measured again, once, if it can be and there is time.
func TestBusyMachine(t *testing.T) {
	s := start(t, 2)
	busy := machine.Activity{IdleBefore: 1, Others: 0.5}
	for _, c := range []struct {
		name               string
		repeats            bool
		part               string
		busy               int // measurements on a busy machine
		measured           int
		repeated, stayBusy bool
	}{
		{"in a quick run", false, Bytes, 9, 1, false, true},
		{"busy once", true, Bytes, 1, 2, true, false},
		{"always busy", true, Bytes, 9, 2, true, true},
		{"a fault", true, Redis, 9, 1, false, true},
	} {
		p := tiny()
		p.repeats = c.repeats
		measured := 0
		r, err := run(t.Context(), Options{Only: []string{c.part}}, p, s.addresses, s, new(recorder), func(_ context.Context, trees []int, _ time.Duration) func() machine.Activity {
			measured++
			if !slices.Contains(trees, os.Getpid()) {
				t.Errorf("%s: %v lacks this process", c.name, trees)
			}
			if measured <= c.busy {
				return func() machine.Activity { return busy }
			}
			return quiet(t.Context(), nil, 0)
		})
		if err != nil || measured != c.measured || len(r.Activity) != 1 || r.Activity[0].Repeated != c.repeated || (r.Activity[0].Busy() != "") != c.stayBusy {
			t.Errorf("%s: %d measurements (%v), %+v", c.name, measured, err, r.Activity)
		}
		if c.part == Bytes && len(r.Bytes) != len(revisitShares) {
			t.Errorf("%s: %d shares, want the %d of one measurement", c.name, len(r.Bytes), len(revisitShares))
		}
	}
}

// A run ends at its limit, returns what it measured, and names what is missing. The time that faults need is reserved.
func TestLimit(t *testing.T) {
	t.Parallel()
	s := start(t, 2)
	p := tiny()
	p.steady, p.limit = time.Hour, 25*time.Second
	r, err := run(t.Context(), Options{Only: []string{Latency, Redis}}, p, s.addresses, s, new(recorder), quiet)
	if err != nil || r.Latency != nil || r.Redis == nil || !strings.Contains(r.Partial, "no time was left for latency, because the run is limited to 25s") || r.Took > p.limit {
		t.Errorf("got %+v (%v), want everything but the latency", r, err)
	}
	p.settle, p.limit = time.Hour, 5*time.Second
	if r, err = run(t.Context(), Options{Only: []string{Redis}}, p, s.addresses, s, new(recorder), quiet); err != nil || r.Redis != nil || r.Took > 30*time.Second {
		t.Errorf("got %+v (%v), want a run that ends", r, err)
	}
}

// The result is within a tenth of the truth, from above and from below, at the bounds, and despite a single
// failure.
func TestHighest(t *testing.T) {
	for _, c := range []struct{ first, least, most, truth, from, to int }{
		{1000, 50, 100_000, 1000, 1000, 1000},
		{1000, 50, 100_000, 37_123, 33_700, 37_123},
		{1000, 50, 100_000, 130, 118, 130},
		{1000, 50, 100_000, 49, 0, 0},
		{1000, 50, 100_000, 1_000_000, 100_000, 100_000},
		{10, 10, 11, 10, 10, 10},
	} {
		tries, flaky := 0, 0
		got, err := highest(c.first, c.least, c.most, func(rate int) (bool, error) {
			tries++
			if rate <= c.truth && tries == 1 {
				flaky = rate
				return false, nil
			}
			return rate <= c.truth, nil
		})
		if err != nil || got < c.from || got > c.to || tries > 40 {
			t.Errorf("the truth is %d: got %d (%v) after %d tries (%d failed once), want %d to %d", c.truth, got, err, tries, flaky, c.from, c.to)
		}
	}
	failed := errors.New("failed")
	if _, err := highest(10, 1, 100, func(int) (bool, error) { return false, failed }); !errors.Is(err, failed) {
		t.Errorf("got %v, want the error", err)
	}
}

// The search for a write rate ends at the highest rate that is known to pass, not below it.
func TestPassed(t *testing.T) {
	p99 := map[int]float64{10: 0.007, 200: 0.008, 1000: 0.025}
	for bound, want := range map[float64]int{0.001: leastWrites, 0.0075: 10, 0.01: 200, 0.1: 1000} {
		if got := passed(p99, bound); got != want {
			t.Errorf("below %v s: %d, want %d", bound, got, want)
		}
	}
}

// The benchmark's own reader and its peers are measured, each lane with its CPU time.
func TestOwnReader(t *testing.T) {
	needWrk(t)
	s := start(t, 2)
	progress := new(recorder)
	r, err := run(t.Context(), Options{Only: []string{Lanes, Million, Updates}}, tiny(), s.addresses, s, progress, quiet)
	t.Log(progress.text.String())
	if err != nil {
		t.Fatal(err)
	}
	o := r.Own
	if o == nil || o.Bytes < 240 || o.Bytes > 259 || o.Posts != 2000 || len(o.Shared) != 2 || len(o.Proxies) < 1 {
		t.Fatalf("own: %+v", o)
	}
	want := []string{report.LaneFast, report.LaneStd, report.LaneNetHTTP, report.LaneZipf, report.LaneUpdated, report.LaneElsewhere}
	for _, name := range want {
		if !slices.ContainsFunc(o.Lanes, func(l report.Lane) bool { return l.Name == name && len(l.Rates) == 1 && l.Rates[0] > 0 }) {
			t.Errorf("%s was not measured: %+v", name, o.Lanes)
		}
	}
	if m := r.Million; m == nil || m.Posts != 2000 || len(m.Starts) != 1 || len(m.Scans) != 1 || len(m.Updates) != 2 || m.Updates[0].Written < 100 || m.Peak < m.StartPeak || m.Peak == 0 || m.Idle != 50 {
		t.Errorf("million: %+v", m)
	}
	if u := r.UpdateCost; u == nil || len(u.Redis) != 1 || u.Redis[0] <= 0 || u.Writer[0] <= 0 || u.Reader[0] <= 0 ||
		u.Delivered[0].Count == 0 || u.Stored[0].Count == 0 || u.Visible[0].Count == 0 || u.Beside[0].Count == 0 || u.BesideReads[0].Count == 0 {
		t.Errorf("updates: %+v", u)
	}
	if text := r.Markdown(""); strings.Contains(text, "%!") || strings.Contains(text, "NaN") {
		t.Errorf("the report:\n%s", text)
	}
}

// Subscribers receive every write, at the capacity of Redis and at constant rates, and each point has its costs.
func TestFanout(t *testing.T) {
	s := start(t, 1)
	progress := new(recorder)
	r, err := run(t.Context(), Options{Only: []string{Fanout}}, tiny(), s.addresses, s, progress, quiet)
	t.Log(progress.text.String())
	if err != nil {
		t.Fatal(err)
	}
	if r.Fanout == nil || r.Fanout.Capacity == nil || len(r.Fanout.Capacity.Points) != 2 || len(r.Fanout.Points) != 5 {
		t.Fatalf("got %+v, want the capacity with two numbers of subscribers, and points without any, and with two with and without relays", r.Fanout)
	}
	if c := r.Fanout.Capacity; c.InFlight != 64 || c.Bytes < 200 || c.Pinned != (c.Server != "") {
		t.Errorf("capacity: %+v", c)
	}
	for i, p := range r.Fanout.Capacity.Points {
		for _, l := range []report.CapacityLoad{p.Full, p.Part} {
			if p.Subscribers != tiny().audiences[i] || l.Rate < 100 || l.CPU <= 0 || math.Abs(l.Core-l.CPU*l.Rate) > 0.01 || l.Busy < l.Core || l.Delay.Count == 0 || l.Delay.P50 <= 0 || l.Delay.Max > 5 {
				t.Errorf("capacity %d: %+v", i, p)
			}
		}
		if p.Part.Rate > 0.9*p.Full.Rate {
			t.Errorf("capacity %d: %.0f writes/s, want 70 %% of %.0f", i, p.Part.Rate, p.Full.Rate)
		}
	}
	for i, p := range r.Fanout.Points {
		relays, subscribers := 0, 0
		if i > 0 {
			relays, subscribers = (i-1)/2*fanoutRelays, tiny().subscribers[(i-1)%2]
		}
		if p.Rate != 100 || p.Relays != relays || p.Subscribers != subscribers || p.Primary <= 0 || (p.Relay > 0) != (relays > 0) || p.Reached <= 0 ||
			(p.Delay.Count > 0) != (subscribers > 0) || p.Delay.Count%2 != 0 || subscribers > 0 && float64(p.Delay.Count) < 1.9*p.Reached*tiny().fanout.Seconds() || (p.Delay.P50 > 0) != (subscribers > 0) {
			t.Errorf("point %d: %+v", i, p)
		}
	}
	if text := r.Markdown(""); !strings.Contains(text, "## Fan-out") || strings.Contains(text, "%!") || strings.Contains(text, "NaN") {
		t.Errorf("the report:\n%s", text)
	}
}

// A run that is stopped while a process is down returns its results and restores the stack.
func TestStoppedRun(t *testing.T) {
	t.Parallel()
	s := start(t, 2)
	for _, c := range []struct{ name, part string }{{"reader-1 is dead", Readers}, {"a reader is added", Readers}, {"redis is dead", Redis}} {
		ctx, cancel := context.WithCancel(t.Context())
		s.onFault = func(what string) {
			if what == c.name {
				cancel()
			}
		}
		r, err := run(ctx, Options{Only: []string{Bytes, c.part}}, tiny(), s.addresses, s, new(recorder), quiet)
		cancel()
		s.onFault = nil
		if err != nil || r == nil || len(r.Bytes) != len(revisitShares) || r.Readers != nil || r.Redis != nil || !strings.Contains(r.Partial, "stopped") {
			t.Fatalf("%s: got %+v (%v), want what was measured before", c.name, r, err)
		}
		if len(s.readers) != 2 {
			t.Errorf("%s: %d readers are left of 2", c.name, len(s.readers))
		}
		for _, reader := range s.readers {
			if _, err := target.ReaderStatus(t.Context(), reader.addr); err != nil {
				t.Errorf("%s: %s does not run: %v", c.name, reader.name, err)
			}
		}
		if err := s.redis.Client(t).Ping(t.Context()).Err(); err != nil {
			t.Errorf("%s: Redis does not run: %v", c.name, err)
		}
	}
}

// A wrong answer during a fault ends the wait for the end of the fault.
func TestWrongAnswerEndsWork(t *testing.T) {
	t.Parallel()
	wrongServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "wrong") }))
	defer wrongServer.Close()
	s := &suite{plan: tiny(), mix: workload.NewMix(), addresses: target.Addresses{Gateway: wrongServer.Listener.Addr().String()}}
	s.reads = &load.Reads{Mix: s.mix, Posts: s.posts}
	s.ranks = s.reads.Draw(1, 100)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := s.underReads(ctx, time.Hour, true, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	var wrong *load.WrongError
	if !errors.As(err, &wrong) || ctx.Err() != nil {
		t.Errorf("got %v, %v; want a WrongError at once", err, ctx.Err())
	}
}

func TestSequence(t *testing.T) {
	drawn := []int{5, 5, 7, 5, 9, 11, 7, 13}
	if got, want := sequence(drawn, 4, 0), []int{5, 7, 9, 11}; !slices.Equal(got, want) {
		t.Errorf("without revisits: %v, want %v", got, want)
	}
	got := sequence(drawn, 20, 0)
	if len(got) != 20 || slices.Max(got[5:]) > 13 {
		t.Errorf("when no new ranks are left: %v", got)
	}
	many := make([]int, 10_000)
	for i := range many {
		many[i] = i
	}
	for _, share := range []float64{0.2, 0.8} {
		seen, again := map[int]bool{}, 0
		for _, rank := range sequence(many, 5000, share) {
			if seen[rank] {
				again++
			}
			seen[rank] = true
		}
		if got := float64(again) / 5000; got < share-0.03 || got > share+0.03 {
			t.Errorf("the share of revisits is %v, want %v", got, share)
		}
	}
}

func TestPlan(t *testing.T) {
	quick, full := newPlan(Options{}), newPlan(Options{Full: true})
	if quick.posts != 100_000 || full.posts != 1_000_000 || quick.rateGiven {
		t.Errorf("quick %+v, full %+v", quick, full)
	}
	for _, failsOver := range []bool{false, true} {
		if e := Estimate(Options{}, failsOver); e < 60*time.Second || e > 160*time.Second {
			t.Errorf("quick takes %v, want up to two and a half minutes", e)
		}
		if e := Estimate(Options{Full: true}, failsOver); e < 10*time.Minute || e > 15*time.Minute {
			t.Errorf("full takes %v, want up to a quarter of an hour", e)
		}
	}
	p := newPlan(Options{Full: true, Duration: 3 * time.Second, Connections: 1, Rate: 7, Posts: 9})
	if p.round != 3*time.Second || p.steady != 3*time.Second || p.propagation != 3*time.Second || p.connections != 1 || p.threads != 1 || p.rate != 7 || !p.rateGiven || p.posts != 9 {
		t.Errorf("with every option set: %+v", p)
	}
}
