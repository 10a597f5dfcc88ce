package events

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/stack/state"
)

// scene is a stack whose observations a test sends to a log, half a second apart.
type scene struct {
	t   *testing.T
	log *Log
	now Observation
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, log: NewLog(), now: Observation{Time: time.Now()}}
	for i, p := range []state.Process{
		{Name: "redis", Role: state.Redis}, {Name: "writer", Role: state.Writer},
		{Name: "reader-1", Role: state.Reader}, {Name: "reader-2", Role: state.Reader}, {Name: "gateway", Role: state.Gateway},
	} {
		p.PID, p.State = 100+i, state.Ready
		s.now.Processes = append(s.now.Processes, p)
	}
	s.observe()
	return s
}

func (s *scene) observe() {
	o := s.now
	o.Processes = slices.Clone(o.Processes) // the test changes its own
	s.log.Observe(o)
	s.now.Time = s.now.Time.Add(500 * time.Millisecond)
	s.now.Totals.Reads += 100
}

func (s *scene) process(name string) *state.Process {
	for i := range s.now.Processes {
		if s.now.Processes[i].Name == name {
			return &s.now.Processes[i]
		}
	}
	s.t.Fatalf("no process %s", name)
	return nil
}

func (s *scene) set(name, to, detail string) {
	p := s.process(name)
	p.State, p.Detail = to, detail
}

func (s *scene) newest() Event {
	s.t.Helper()
	all := s.log.Events()
	if len(all) == 0 {
		s.t.Fatal("no event")
	}
	return all[len(all)-1]
}

func (s *scene) want(outcome, verdict string) {
	s.t.Helper()
	if e := s.newest(); e.Outcome != outcome || e.Verdict != verdict {
		s.t.Errorf("event %+v\nwant the outcome %q, verdict %q", e, outcome, verdict)
	}
}

func TestDeathAndRestart(t *testing.T) {
	s := newScene(t)
	s.process("reader-2").PID = 0
	s.set("reader-2", state.Restarting, "signal: killed")
	s.set("gateway", state.Degraded, "reader-2: not used")
	s.observe()
	if e := s.newest(); e.Kind != Killed || e.Text != "reader-2 died (signal: killed)" || e.Verdict != "" || e.End != 0 {
		t.Fatalf("event %+v", e)
	}
	s.process("reader-2").PID = 200
	s.set("reader-2", state.NotReady, "loading a snapshot")
	s.observe()
	s.set("reader-2", state.Ready, "")
	s.observe()
	s.set("gateway", state.Ready, "")
	s.observe()
	s.want("back after 1.0 s; 0 of 300 reads failed", Good)
	if n := len(s.log.Events()); n != 1 {
		t.Errorf("%d events, want one: what follows from it is none of its own", n)
	}
}

// A process may die and be back between two observations.
func TestQuickRestart(t *testing.T) {
	s := newScene(t)
	s.process("reader-1").PID = 300
	s.observe()
	s.observe()
	s.want("back after 0.0 s; 0 of 100 reads failed", Good)
}

func TestFailedReadsAreBad(t *testing.T) {
	s := newScene(t)
	if _, err := s.log.Fault(Killed, *s.process("reader-1"), 0, "reader-1 was killed"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log.Fault(Killed, *s.process("reader-1"), 0, "again"); err != ErrBusy {
		t.Errorf("a second fault: %v", err)
	}
	s.observe() // the old process still answers
	if e := s.newest(); e.Verdict != "" {
		t.Fatalf("the event is over before the process was killed: %+v", e)
	}
	s.process("reader-1").PID = 300
	s.now.Totals.Failed = 2
	s.observe()
	s.observe()
	if e := s.newest(); e.Verdict != Bad || !strings.HasSuffix(e.Outcome, "; 2 of 300 reads failed") {
		t.Errorf("event %+v", e)
	}
}

// While Redis is away, readers that are degraded and a writer that is not ready are no events of their own.
func TestOneCauseIsOneEvent(t *testing.T) {
	s := newScene(t)
	s.set("redis", state.NotReady, "timeout")
	s.set("reader-1", state.Degraded, "stale")
	s.observe()
	s.set("writer", state.NotReady, "Redis is unreachable")
	s.set("reader-2", state.Degraded, "stale")
	s.observe()
	for _, name := range []string{"redis", "writer", "reader-1"} {
		s.set(name, state.Ready, "")
	}
	s.observe()
	s.observe()
	if e := s.newest(); e.Verdict != "" {
		t.Errorf("over although reader-2 is still degraded: %+v", e)
	}
	s.set("reader-2", state.Ready, "")
	s.observe()
	s.observe()
	s.want("ready again after 2.0 s; 0 of 500 reads failed", Good)
	if n := len(s.log.Events()); n != 1 {
		t.Errorf("events %v, want one", s.log.Events())
	}
}

func TestReaderThatLostRedis(t *testing.T) {
	s := newScene(t)
	s.set("reader-1", state.Degraded, "the subscription to updates is not live")
	s.observe()
	if e := s.newest(); e.Kind != Degraded || e.Text != "reader-1 is degraded: the subscription to updates is not live" {
		t.Errorf("event %+v", e)
	}
	s.now.Time = s.now.Time.Add(overdue)
	s.observe()
	if e := s.newest(); e.Verdict != Bad || !strings.HasPrefix(e.Outcome, "not well again after 6") {
		t.Errorf("event %+v", e)
	}
}

// Where reads are counted late, an event is over when those until the recovery are counted.
func TestDelayedTotals(t *testing.T) {
	s := newScene(t)
	s.now.Delay = 2 * time.Second
	if _, err := s.log.Fault(Killed, *s.process("reader-1"), 0, "reader-1 was killed"); err != nil {
		t.Fatal(err)
	}
	s.process("reader-1").PID = 300
	for range 4 {
		s.observe()
	}
	if e := s.newest(); e.End != 0 {
		t.Fatalf("over before the reads are counted: %+v", e)
	}
	s.now.Totals.Failed = 1
	s.observe()
	if e := s.newest(); e.Verdict != Bad || !strings.HasPrefix(e.Outcome, "back after 0.") || !strings.Contains(e.Outcome, "; 1 of ") {
		t.Errorf("event %+v", e)
	}

	s.now.Delay = 10 * time.Second
	s.now.Processes = slices.DeleteFunc(slices.Clone(s.now.Processes), func(p state.Process) bool { return p.Name == "reader-2" })
	for range 20 {
		s.observe()
	}
	if e := s.newest(); e.Kind != Left || e.End != 0 {
		t.Errorf("removed before the reads are counted: %+v", e)
	}
}

// A fault that lasts is not over before its time, however well the process looks.
func TestFaultThatLasts(t *testing.T) {
	s := newScene(t)
	if _, err := s.log.Fault(Frozen, *s.process("reader-1"), 2*time.Second, "reader-1 was frozen for 2 s"); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		s.observe()
	}
	if e := s.newest(); e.End != 0 {
		t.Errorf("over too early: %+v", e)
	}
	s.now.Time = s.now.Time.Add(time.Second)
	s.observe()
	s.observe()
	if e := s.newest(); e.Verdict != Good {
		t.Errorf("event %+v", e)
	}
}

func TestDigests(t *testing.T) {
	same := map[string]Digest{"reader-1": {"aa", 7, "e", "w"}, "reader-2": {"aa", 7, "e", "w"}}
	for _, tt := range []struct {
		name    string
		digests map[string]Digest
		want    Agreement
		verdict string
	}{
		{"none", nil, NotKnown, Good},
		{"identical", same, Identical, Good},
		{"different", map[string]Digest{"reader-1": {"aa", 7, "e", "w"}, "reader-2": {"bb", 7, "e", "w"}}, Differ, Bad},
		{"another version", map[string]Digest{"reader-1": {"aa", 7, "e", "w"}, "reader-2": {"bb", 8, "e", "w"}}, NotKnown, ""},
		{"after a rollback", map[string]Digest{"reader-1": {"aa", 7, "e", "w"}, "reader-2": {"bb", 7, "e", "x"}}, NotKnown, ""},
		{"another epoch", map[string]Digest{"reader-1": {"aa", 7, "e", "w"}, "reader-2": {"bb", 7, "f", "w"}}, NotKnown, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := Compare(tt.digests); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			s := newScene(t)
			s.process("reader-1").PID = 300
			s.now.Digests = tt.digests
			s.observe()
			s.observe()
			if e := s.newest(); e.Verdict != tt.verdict || strings.Contains(e.Outcome, "digests") != (tt.want != NotKnown) {
				t.Errorf("event %+v, want the verdict %q", e, tt.verdict)
			}
			s.now.Digests = same
			s.now.Time = s.now.Time.Add(time.Second)
			s.observe()
			if e := s.newest(); e.Verdict == "" {
				t.Errorf("not over: %+v", e)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	s := newScene(t)
	s.process("redis").Note = "primary, 1 Redis replica"
	s.now.Processes = append(s.now.Processes, state.Process{Name: "redis-2", Role: state.Redis, PID: 9, State: state.Ready, Note: "Redis replica of redis, link up"})
	s.observe()
	s.process("redis").Note, s.process("redis").PID = "", 0
	s.set("redis", state.Restarting, "signal: killed")
	s.observe()
	s.observe()
	s.process("redis-2").Note = "primary"
	s.observe()
	if e := s.newest(); e.Kind != Failover || e.Text != "failover: redis-2 is the primary instead of redis" {
		t.Errorf("event %+v", e)
	}
	s.observe()
	if n := len(s.log.Events()); n != 2 {
		t.Errorf("events %v", s.log.Events())
	}
}

func TestSnapshotsAndCatchUps(t *testing.T) {
	s := newScene(t)
	counts := func(one, two int64) map[string]int64 { return map[string]int64{"reader-1": one, "reader-2": two} }
	s.now.Snapshots, s.now.CatchUps = counts(1, 1), counts(0, 0)
	s.observe()
	if n := len(s.log.Events()); n != 0 {
		t.Errorf("the first counts are events: %v", s.log.Events())
	}
	s.now.Snapshots, s.now.CatchUps = nil, nil // an observation without counts in between
	s.observe()
	s.now.Snapshots, s.now.CatchUps = counts(1, 1), counts(1, 2)
	s.observe()
	if e := s.newest(); e.Kind != CatchUp || e.Text != "reader-1 and reader-2 caught up from the log in Redis" {
		t.Errorf("event %+v", e)
	}
	s.now.CatchUps = counts(2, 2)
	s.observe()
	if e := s.newest(); e.ID != 1 || e.Count != 2 || e.Text != "reader-1 and reader-2 caught up from the log in Redis, 2 times" {
		t.Errorf("a repetition has a line of its own: %+v", e)
	}
	s.now.Snapshots = counts(2, 1)
	s.observe()
	if e := s.newest(); e.Kind != Snapshot || e.Text != "reader-1 loaded a snapshot of all posts" {
		t.Errorf("event %+v", e)
	}
	s.observe()
	if n := len(s.log.Events()); n != 2 {
		t.Errorf("events %v", s.log.Events())
	}
}

func TestBeginAndFinish(t *testing.T) {
	s := newScene(t)
	id := s.log.Begin(Scaled, "readers 2 → 3")
	s.now.Processes = append(s.now.Processes, state.Process{Name: "reader-3", Role: state.Reader, PID: 7, State: state.NotReady})
	s.observe()
	s.set("reader-3", state.Ready, "")
	s.observe()
	s.log.Finish(id, "done", nil)
	s.observe()
	s.want("done; 0 of 300 reads failed", Good)
	if n := len(s.log.Events()); n != 1 {
		t.Errorf("events %v", s.log.Events())
	}
	id, err := s.log.Fault(Cut, *s.process("reader-1"), time.Second, "cut")
	if err != nil {
		t.Fatal(err)
	}
	s.log.Cancel(id)
	if n := len(s.log.Events()); n != 1 {
		t.Errorf("a cancelled fault is an event: %v", s.log.Events())
	}
	for range 2 * maxEvents {
		s.log.Note(LoadStarted, "", "load")
	}
	if n := len(s.log.Events()); n != maxEvents {
		t.Errorf("%d events are kept", n)
	}
}

// Where nobody knows the process of a reader, as in Docker, it can only leave and come back. One that stays away was
// removed, and is seen when it is ready again.
func TestReaderLeavesAndComesBack(t *testing.T) {
	s := newScene(t)
	all := s.now.Processes
	without := slices.DeleteFunc(slices.Clone(all), func(p state.Process) bool { return p.Name == "reader-2" })
	s.now.Processes = without
	s.observe()
	if e := s.newest(); e.Kind != Left || e.Process != "reader-2" || e.Text != "reader-2 is gone" || e.End != 0 {
		t.Errorf("event %+v", e)
	}
	s.now.Processes = all
	s.set("reader-2", state.NotReady, "loading a snapshot")
	s.observe()
	s.set("reader-2", state.Ready, "")
	s.observe()
	s.observe()
	s.want("back after 1.0 s; 0 of 300 reads failed", Good)

	s.now.Processes = without
	for range 8 {
		s.observe()
	}
	s.want("it was removed; 0 of 600 reads failed", Good)
	s.now.Processes = all
	s.set("reader-2", state.NotReady, "loading a snapshot")
	s.observe()
	if e := s.newest(); e.Kind != Left {
		t.Errorf("event %+v before the reader is ready", e)
	}
	s.set("reader-2", state.Ready, "")
	s.observe()
	s.observe()
	if e := s.newest(); e.Kind != Joined || e.Text != "reader-2 is back" {
		t.Errorf("event %+v", e)
	}
	// One that stops before it leaves has one event.
	s.set("reader-2", state.NotReady, "the reader is stopping")
	s.observe()
	s.now.Processes = without
	for range 8 {
		s.observe()
	}
	s.want("it was removed; 0 of 700 reads failed", Good)
	if n := len(s.log.Events()); n != 4 {
		t.Errorf("events %v", s.log.Events())
	}
}

// A start is no event: a process that was never ready has lost nothing.
func TestStartIsNoEvent(t *testing.T) {
	s := &scene{t: t, log: NewLog(), now: Observation{Time: time.Now()}}
	s.now.Processes = []state.Process{{Name: "reader-1", Role: state.Reader, PID: 1, State: state.NotReady}}
	s.observe()
	s.process("reader-1").PID = 2
	s.observe()
	s.set("reader-1", state.Ready, "")
	s.observe()
	if n := len(s.log.Events()); n != 0 {
		t.Errorf("events %v", s.log.Events())
	}
}

// A list of processes that failed, or lacks one, says nothing about a fault that goes on; only a process that stays away
// was removed.
func TestFailedListEndsNoFault(t *testing.T) {
	s := newScene(t)
	if _, err := s.log.Fault(Frozen, *s.process("reader-1"), 0, "reader-1 was frozen"); err != nil {
		t.Fatal(err)
	}
	s.set("reader-1", state.NotReady, "timeout")
	s.observe()
	all := s.now.Processes
	without := slices.DeleteFunc(slices.Clone(all), func(p state.Process) bool { return p.Name == "reader-1" })
	for _, listed := range [][]state.Process{nil, {}, all} {
		s.now.Processes = listed
		s.observe()
	}
	if all := s.log.Events(); len(all) != 1 {
		t.Errorf("events %v, want only the fault", all)
	}
	s.now.Processes = without
	s.observe()
	for _, e := range s.log.Events() {
		if e.Kind == Frozen && e.End != 0 {
			t.Errorf("over after a list that failed: %+v", e)
		}
	}
	s.now.Processes = all
	s.observe()
	s.now.Processes = without
	s.observe()
	s.now.Time = s.now.Time.Add(goneAfter)
	s.observe()
	if e := s.log.Events()[0]; !strings.HasPrefix(e.Outcome, "it was removed; ") {
		t.Errorf("the reader stays away: %+v", e)
	}
}

// Without reads nothing shows that none would have failed.
func TestNoReadsProveNothing(t *testing.T) {
	s := newScene(t)
	s.process("reader-1").PID = 300
	for range 2 {
		s.now.Totals.Reads = 0
		s.observe()
	}
	s.want("back after 0.0 s; no reads were sent meanwhile", Unproven)
}

// The digest of every reader counts: those of the others say nothing about one that is at another version, or not at the
// same version at the same time.
func TestEveryDigestIsCompared(t *testing.T) {
	at := func(versions ...uint64) map[string]Digest {
		all := make(map[string]Digest)
		for i, v := range versions {
			all[fmt.Sprintf("reader-%d", i+1)] = Digest{Value: fmt.Sprint(v), Version: v}
		}
		return all
	}
	for name, tt := range map[string]struct {
		second       map[string]Digest // at the second observation
		wait         time.Duration
		end, verdict string
	}{
		"one after the other": {at(9, 8, 9), 0, "the readers' digests are identical", Good},
		"one is late":         {at(8, 8, 9), digestWait, "not compared: the digest of reader-3", Unproven},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.process("reader-1").PID = 300
			s.now.Digests = at(7, 7, 6)
			s.observe()
			s.observe()
			if e := s.newest(); e.End != 0 {
				t.Errorf("over before the third digest was compared: %+v", e)
			}
			s.now.Digests = tt.second
			s.now.Time = s.now.Time.Add(tt.wait)
			s.observe()
			if e := s.newest(); !strings.Contains(e.Outcome, tt.end) || e.Verdict != tt.verdict {
				t.Errorf("event %+v, want %q", e, tt.end)
			}
		})
	}
}
