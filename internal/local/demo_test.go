package local

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
	"heavy-read-api/internal/stack/supervisor"
	"heavy-read-api/internal/test/eventually"
)

// wholeConfig returns the configuration of a stack of real processes, whose faults are short.
func wholeConfig(t *testing.T) layout.Config {
	t.Helper()
	cfg := testConfig(t, childEnvironment+"="+wholeStack, "READERS=3")
	cfg.FaultTime = 1500 * time.Millisecond
	return cfg
}

// TestDemo runs the demo on a stack of real processes: every outcome is good, and the load is gone afterwards.
func TestDemo(t *testing.T) {
	cfg := wholeConfig(t)
	run(t, cfg)
	readyState(t, cfg)
	var out bytes.Buffer
	p := &program{ctx: t.Context(), out: &out, err: &out, pause: 10 * time.Millisecond}
	if err := p.demo(choice{}, &processes{program: p, cfg: cfg}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"load started: 400 reads/s, 10 writes/s\n", "ok   ", " reader-2 was killed (SIGKILL); back after ", " reader-1 was frozen for 1.5 s (SIGSTOP); ready again after ",
		" reader-3 was cut off from Redis for 1.5 s; ready again after ", "Redis is not killed: ", " redis was frozen for 1.5 s (SIGSTOP); ",
		" readers in rotation: 3 → 4; done after ", " readers in rotation: 4 → 3; done after ", "6 of 6 outcomes are good. 0 of ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not print %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "BAD") || strings.Contains(out.String(), "no reads were sent") {
		t.Errorf("the demo prints\n%s", out.String())
	}
	eventually.True(t, "the load has stopped", func() bool {
		st, err := control.State(t.Context(), supervisor.Address(cfg.Port))
		return err == nil && !loaded(st)
	})
}

// recorded is a stage without a stack, which answers with what a test gives it.
type recorded struct {
	events    []events.Event
	faults    []string
	st        state.Stack
	failed    int64
	failsWith int64  // reads that fail with each fault
	good      bool   // every outcome is good, and every step is possible
	readers   []int  // arguments of setReaders
	scaling   func() // if set, the first call of setReaders calls it and fails
	verdict   string // of every outcome; "" for those of good
	mu        sync.Mutex
	reads     int64
}

func (r *recorded) state() (state.Stack, error) { return r.st, nil }
func (r *recorded) story(context.Context) (control.Story, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads += 500
	return control.Story{Events: r.events, Totals: events.Totals{Reads: r.reads, Failed: r.failed}}, nil
}
func (r *recorded) setLoad(context.Context, int, int) error { return nil }
func (r *recorded) setReaders(_ context.Context, n int) error {
	r.readers = append(r.readers, n)
	if r.scaling != nil {
		r.scaling()
		r.scaling = nil
		return context.Canceled
	}
	if !r.good {
		return errors.New("no more ports")
	}
	r.events = append(r.events, events.Event{ID: int64(len(r.events) + 1), Time: 1, End: 2, Kind: events.Scaled, Outcome: "over", Verdict: events.Good})
	return nil
}
func (r *recorded) close() {}
func (r *recorded) fault(kind, process string) error {
	r.faults = append(r.faults, kind+" "+process)
	r.mu.Lock()
	r.failed += r.failsWith
	r.mu.Unlock()
	kinds := map[string]string{"kill": events.Killed, "freeze": events.Frozen, "cut": events.Cut}
	verdict := events.Good
	if kind == "freeze" && !r.good {
		verdict = events.Bad
	}
	verdict = cmp.Or(r.verdict, verdict)
	r.events = append(r.events, events.Event{
		ID: int64(len(r.events) + 1), Time: 1, End: 2, Kind: kinds[kind], Process: process, Text: kind + " " + process, Outcome: "over", Verdict: verdict,
	})
	return nil
}

// runTour runs the demo on a stage whose processes are ready.
func runTour(t *testing.T, r *recorded, processes ...state.Process) (*tour, string, error) {
	t.Helper()
	return runTourIn(t.Context(), t, r, processes...)
}

// runTourIn is runTour until ctx is done.
func runTourIn(ctx context.Context, t *testing.T, r *recorded, processes ...state.Process) (*tour, string, error) {
	t.Helper()
	r.st.Complete = true
	for _, p := range processes {
		p.State = state.Ready
		r.st.Processes = append(r.st.Processes, p)
	}
	var out bytes.Buffer
	p := &program{ctx: ctx, out: &out, err: &out}
	tour, err := p.newTour(r)
	if err != nil {
		t.Fatal(err)
	}
	err = tour.run()
	return tour, out.String(), err
}

// A bad outcome makes the demo fail, and a step that the stack refuses ends it.
func TestDemoFails(t *testing.T) {
	r := &recorded{st: state.Stack{Redis: state.RedisServer{Layout: layout.WithSentinel}}}
	tour, out, err := runTour(t, r,
		state.Process{Name: "redis-1", Role: state.Redis, Note: "Redis replica of redis-2, link up"},
		state.Process{Name: "redis-2", Role: state.Redis, Note: "primary, 1 Redis replica"},
		state.Process{Name: "reader-1", Role: state.Reader}, state.Process{Name: "reader-direct", Role: state.Reader})
	if err == nil || err.Error() != "no more ports" {
		t.Errorf("error %v, want that of the refused step", err)
	}
	want := []string{"kill reader-1", "freeze reader-1", "cut reader-1", "kill redis-2", "freeze redis-2"}
	if !slices.Equal(r.faults, want) {
		t.Errorf("faults %v, want %v", r.faults, want)
	}
	if tour.good != 3 || tour.bad != 2 || !strings.Contains(out, "BAD  ") {
		t.Errorf("%d good, %d bad:\n%s", tour.good, tour.bad, out)
	}
}

// A read that no event accounts for makes the demo fail too.
func TestDemoCountsEveryRead(t *testing.T) {
	for failsWith, want := range map[int64]string{0: "<nil>", 1: "0 outcomes are not good, and 5 reads failed"} {
		r := &recorded{good: true, failsWith: failsWith, st: state.Stack{Redis: state.RedisServer{Layout: layout.Single}}}
		_, out, err := runTour(t, r, state.Process{Name: "redis", Role: state.Redis},
			state.Process{Name: "reader-1", Role: state.Reader}, state.Process{Name: "reader-2", Role: state.Reader})
		if fmt.Sprint(err) != want {
			t.Errorf("with %d reads failing at each fault: error %v, want %s\n%s", failsWith, err, want, out)
		}
	}
}

// Outcomes without reads are not good.
func TestDemoNeedsReads(t *testing.T) {
	r := &recorded{good: true, verdict: events.Unproven}
	_, out, err := runTour(t, r, state.Process{Name: "reader-1", Role: state.Reader})
	if err == nil || !strings.HasSuffix(err.Error(), " outcomes are not good, and 0 reads failed") || !strings.Contains(out, "??  ") {
		t.Errorf("error %v\n%s", err, out)
	}
}

// An interrupt between adding and removing a reader leaves the number of readers as it was.
func TestInterruptedDemoRestoresTheReaders(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r := &recorded{good: true, scaling: interrupt, st: state.Stack{Redis: state.RedisServer{Layout: layout.Single}}}
	_, out, err := runTourIn(ctx, t, r, state.Process{Name: "reader-1", Role: state.Reader}, state.Process{Name: "reader-2", Role: state.Reader})
	if !errors.Is(err, context.Canceled) || !slices.Equal(r.readers, []int{3, 2}) {
		t.Errorf("numbers of readers %v, want 3 and then 2; error %v\n%s", r.readers, err, out)
	}
}

// After an interrupt no wait claims that it took too long.
func TestInterruptedDemoSaysSo(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	p := &program{ctx: ctx, out: io.Discard, err: io.Discard}
	tour, err := p.newTour(new(recorded))
	if err != nil {
		t.Fatal(err)
	}
	step := step{events.Killed, "reader-1", func() error { interrupt(); return nil }}
	if err := tour.take(step); err == nil || err.Error() != "interrupted" {
		t.Errorf("error %v", err)
	}
}

var loadSummary = regexp.MustCompile(`\nThe load ran for \d+s: 0 of [\d,]*[1-9][\d,]* reads failed\.\n$`)

// TestLoadCommand puts load on a stack until it is interrupted.
func TestLoadCommand(t *testing.T) {
	cfg := wholeConfig(t)
	run(t, cfg)
	readyState(t, cfg)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var out bytes.Buffer
	p := &program{ctx: ctx, out: &out, err: &out, pause: 50 * time.Millisecond}
	ended := make(chan error, 1)
	go func() { ended <- p.load(&processes{program: p, cfg: cfg}) }()
	addr := supervisor.Address(cfg.Port)
	eventually.True(t, "reads are counted", func() bool {
		story, err := control.Events(t.Context(), addr)
		return err == nil && story.Totals.Reads > 100
	})
	if err := control.Load(t.Context(), addr, 100, 1); err == nil || err.Error() != "the load runs already" {
		t.Errorf("a second load: %v", err)
	}
	interrupt()
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := control.Load(t.Context(), addr, 0, 0); err == nil || err.Error() != "there is no load to stop" {
		t.Errorf("the load after its end: %v", err)
	}
	if text := out.String(); !strings.Contains(text, "Load: 400 reads/s through the gateway, 10 writes/s, until Ctrl-C.\n") || !loadSummary.MatchString(text) {
		t.Errorf("it prints\n%s", text)
	}
}

// Faults are refused with a reason, and what a frozen process leaves behind does not hold up the stop.
func TestFaults(t *testing.T) {
	cfg := testConfig(t)
	cfg.FaultTime = time.Hour
	stop := run(t, cfg)
	st := readyState(t, cfg)
	addr := supervisor.Address(cfg.Port)
	for _, tt := range []struct{ kind, process, want string }{
		{"kill", "reader-9", `there is no process "reader-9"`},
		{"burn", "reader-1", `there is no fault "burn": use kill, freeze or cut`},
		{"cut", "reader-direct", "the link of reader-direct cannot be cut: "},
		{"cut", "writer", "the link of writer cannot be cut: "},
		{"kill", "redis", "this is the embedded Redis, which keeps the posts in memory only: "},
	} {
		if err := control.Fault(t.Context(), addr, tt.kind, tt.process); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s %s: %v, want %q", tt.kind, tt.process, err, tt.want)
		}
	}
	// A page of another site cannot break the stack of its visitor.
	for _, path := range []string{"/api/fault", "/api/load", "/api/scale"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+path, strings.NewReader(`{"fault":"kill","process":"reader-1"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", "http://example.com")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("POST %s of another origin: status %d", path, res.StatusCode)
		}
	}
	if err := control.Fault(t.Context(), addr, "kill", "writer"); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the writer is back with an outcome", func() bool {
		story, err := control.Events(t.Context(), addr)
		return err == nil && slices.ContainsFunc(story.Events, func(e events.Event) bool {
			return e.Process == "writer" && e.Kind == events.Killed && e.Verdict == events.Unproven && strings.HasPrefix(e.Outcome, "back after ")
		})
	})
	if pid := find(t, readyState(t, cfg), "writer").PID; pid == find(t, st, "writer").PID {
		t.Error("the writer was not killed")
	}
	if err := control.Fault(t.Context(), addr, "freeze", "reader-1"); err != nil {
		t.Fatal(err)
	}
	if err := control.Fault(t.Context(), addr, "kill", "reader-1"); err == nil || err.Error() != events.ErrBusy.Error() {
		t.Errorf("a second fault of the same process: %v", err)
	}
	eventually.True(t, "the frozen reader does not answer", func() bool {
		st, err := control.State(t.Context(), addr)
		return err == nil && find(t, st, "reader-1").State == state.NotReady
	})
	begun := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the stop took %v: the frozen reader was killed", took)
	}
	if err := syscall.Kill(find(t, st, "reader-1").PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the reader is still there: %v", err)
	}
}
