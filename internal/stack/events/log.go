package events

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"heavy-read-api/internal/stack/state"
)

const (
	maxEvents  = 100              // newest events that are kept
	overdue    = 60 * time.Second // after this time an event that goes on is over, with a bad verdict
	together   = 15 * time.Second // repetitions of a snapshot or catch-up within this time share a line
	aftermath  = 3 * time.Second  // for this time after an event, what it may have caused is no event of its own
	digestWait = 5 * time.Second  // longest wait until the digest of each reader was compared
	goneAfter  = 3 * time.Second  // a process that is not listed for this time was removed
)

// Observation is the state of a stack at one time.
type Observation struct {
	Time      time.Time
	Processes []state.Process
	Totals    Totals
	Digests   map[string]Digest // by reader; nil if the readers have none
	Snapshots map[string]int64  // snapshots since the start of the observation, by reader; absent if not known
	CatchUps  map[string]int64
	Delay     time.Duration // after this time Totals include a read
}

// Log records events. Its methods are safe for concurrent use.
type Log struct {
	mu      sync.Mutex // guards all fields below
	events  []Event    // the oldest first
	open    []*going
	nextID  int64
	last    Observation
	calm    time.Time // end of the aftermath of the newest event that is over
	seen    map[string]bool
	removed map[string]bool // readers that were removed and are not back
}

// going is an event that goes on.
type going struct {
	id      int64
	kind    string
	process string // "" for an event that Finish ends
	role    string
	pid     int       // of the process at its begin
	begin   time.Time // of the event
	fault   time.Duration
	totals  Totals
	healthy time.Time // since when everything is well again; zero before that
	gone    time.Time // since when the process is not listed; zero while it is

	finished bool   // Finish was called
	good     bool   // Finish was called without an error
	what     string // outcome, without digests and reads

	// Readers whose digest was compared since the time since. One observation compares only those that are at the same
	// version.
	compared map[string]bool
	since    time.Time
}

// NewLog returns a log without events.
func NewLog() *Log { return &Log{seen: make(map[string]bool), removed: make(map[string]bool)} }

// Events returns the events, the oldest first.
func (l *Log) Events() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Open reports whether an event goes on.
func (l *Log) Open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open) > 0
}

// Totals returns the totals of the newest observation.
func (l *Log) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.Totals
}

// ErrBusy is returned for a fault of a process that has not got over the last one.
var ErrBusy = errors.New("the last fault of this process is not over yet: try again when its outcome is known")

// Fault records that a fault is about to be injected into a process, which lasts for a time (0 for a kill). It is over
// when the process has got over it. The caller calls Cancel if the injection fails.
func (l *Log) Fault(kind string, p state.Process, lasts time.Duration, text string) (id int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.open, func(g *going) bool { return g.process == p.Name }) {
		return 0, ErrBusy
	}
	return l.begin(time.Now(), kind, p, lasts, text), nil
}

// Begin records the begin of an event that Finish ends.
func (l *Log) Begin(kind, text string) (id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begin(time.Now(), kind, state.Process{}, 0, text)
}

// Finish ends an event of Begin, at the next observation, whose totals include every read until now. what is a phrase
// for its outcome, or err its failure.
func (l *Log) Finish(id int64, what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.open, func(g *going) bool { return g.id == id })
	if i < 0 {
		return
	}
	if err != nil {
		what = err.Error()
	}
	g := l.open[i]
	g.finished, g.what, g.good = true, what, err == nil
}

// Cancel removes an event that did not happen.
func (l *Log) Cancel(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = slices.DeleteFunc(l.events, func(e Event) bool { return e.ID == id })
	l.open = slices.DeleteFunc(l.open, func(g *going) bool { return g.id == id })
}

// Note records an event that ends as it begins.
func (l *Log) Note(kind, process, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(time.Now(), kind, process, text)
}

func (l *Log) note(at time.Time, kind, process, text string) {
	l.append(Event{Time: at.UnixMilli(), End: at.UnixMilli(), Kind: kind, Process: process, Text: text})
}

func (l *Log) append(e Event) int64 {
	l.nextID++
	e.ID = l.nextID
	l.events = append(l.events, e)
	l.events = l.events[max(0, len(l.events)-maxEvents):]
	return e.ID
}

func (l *Log) begin(at time.Time, kind string, p state.Process, lasts time.Duration, text string) int64 {
	id := l.append(Event{Time: at.UnixMilli(), Kind: kind, Process: p.Name, Text: text})
	l.open = append(l.open, &going{
		id: id, kind: kind, process: p.Name, role: p.Role, pid: p.PID, begin: at, fault: lasts, totals: l.last.Totals,
	})
	return id
}

// end ends an event that goes on, with the reads since its begin, which may make the verdict worse.
func (l *Log) end(g *going, at time.Time, what, verdict string) {
	l.open = slices.DeleteFunc(l.open, func(o *going) bool { return o == g })
	l.calm = at.Add(aftermath)
	i := slices.IndexFunc(l.events, func(e Event) bool { return e.ID == g.id })
	if i < 0 {
		return // so many followed that it is not kept any more
	}
	e := &l.events[i]
	e.End = at.UnixMilli()
	e.Reads = l.last.Totals.Reads - g.totals.Reads
	e.Failed = l.last.Totals.Failed - g.totals.Failed
	switch {
	case e.Failed > 0:
		verdict = Bad
	case e.Reads == 0 && verdict == Good:
		verdict = Unproven
	}
	e.Verdict = verdict
	e.Outcome = what + "; " + readsText(e.Reads, e.Failed)
}

// Observe records what has changed since the last observation. Its calls do not overlap. An observation without any
// process is one that failed, such as a list of containers that Docker did not give: it says nothing and is dropped.
func (l *Log) Observe(o Observation) {
	if len(o.Processes) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.last
	l.last = o
	for _, p := range o.Processes {
		if was, ok := find(before.Processes, p.Name); ok {
			l.compare(o.Time, was, p)
		}
	}
	l.noteListed(before, o)
	l.noteFailover(before, o)
	l.noteGrowth(o.Time, Snapshot, "loaded a snapshot of all posts", before.Snapshots, o.Snapshots)
	l.noteGrowth(o.Time, CatchUp, "caught up from the log in Redis", before.CatchUps, o.CatchUps)
	if o.Snapshots == nil { // not every observation measures: keep the newest counts
		l.last.Snapshots, l.last.CatchUps = before.Snapshots, before.CatchUps
	}
	for _, g := range slices.Clone(l.open) {
		l.review(g, o)
	}
	for _, p := range o.Processes {
		l.seen[p.Name] = l.seen[p.Name] || p.Up()
	}
}

func find(all []state.Process, name string) (state.Process, bool) {
	i := slices.IndexFunc(all, func(p state.Process) bool { return p.Name == name })
	if i < 0 {
		return state.Process{}, false
	}
	return all[i], true
}

// compare begins an event if a process got worse and no event explains it.
func (l *Log) compare(at time.Time, was, p state.Process) {
	if !l.seen[p.Name] || p.State == state.Stopping || l.explained(at, p) {
		return
	}
	switch {
	case p.PID != was.PID && was.PID != 0:
		text := p.Name + " died"
		if p.State == state.Restarting && p.Detail != "" {
			text += " (" + p.Detail + ")"
		}
		l.begin(at, Killed, was, 0, text)
	case was.Up() && !p.Up():
		text := p.Name + " is not ready"
		if p.Detail != "" {
			text += ": " + p.Detail
		}
		l.begin(at, NotReady, p, 0, text)
	case was.State == state.Ready && p.State == state.Degraded && p.Role != state.Gateway:
		l.begin(at, Degraded, p, 0, p.Name+" is degraded: "+p.Detail)
	}
}

// explained reports whether an event explains a change of p: one of p itself, one of Redis (which readers and writer
// follow) or of the readers (which the gateway follows), or the aftermath of such an event.
func (l *Log) explained(at time.Time, p state.Process) bool {
	if at.Before(l.calm) && p.State == state.Degraded {
		return true
	}
	return slices.ContainsFunc(l.open, func(g *going) bool {
		return g.process == p.Name || g.process == "" ||
			(g.role == state.Redis || g.role == state.Sentinel) && p.State != state.Restarting ||
			p.Role == state.Gateway && p.Up()
	})
}

// noteListed records readers that left the list of processes, unless an event of their own or a scaling explains that, and
// those that are back although they counted as removed.
func (l *Log) noteListed(before, now Observation) {
	for _, p := range now.Processes {
		if l.removed[p.Name] && p.Up() {
			delete(l.removed, p.Name)
			l.note(now.Time, Joined, p.Name, p.Name+" is back")
		}
	}
	for _, p := range before.Processes {
		_, listed := find(now.Processes, p.Name)
		if listed || p.Role != state.Reader || slices.ContainsFunc(l.open, func(g *going) bool { return g.process == p.Name || g.process == "" }) {
			continue
		}
		l.begin(now.Time, Left, p, 0, p.Name+" is gone")
	}
}

// noteFailover records that another Redis server has become the primary.
func (l *Log) noteFailover(before, now Observation) {
	was, is := primary(before.Processes), primary(now.Processes)
	if is == "" {
		l.last.Processes = keepPrimary(now.Processes, was)
	} else if was != "" && was != is {
		l.note(now.Time, Failover, is, fmt.Sprintf("failover: %s is the primary instead of %s", is, was))
	}
}

// primary returns the name of the Redis server with the posts, "" if there is none at the moment or only one server.
func primary(all []state.Process) string {
	for _, p := range all {
		if p.Role == state.Redis && (p.Note == "primary" || strings.HasPrefix(p.Note, "primary,") || strings.HasPrefix(p.Note, "primary of the posts")) {
			return p.Name
		}
	}
	return ""
}

// keepPrimary returns the processes with the note of a primary on the named one, so that the next observation with a
// primary is compared with it.
func keepPrimary(all []state.Process, name string) []state.Process {
	all = slices.Clone(all)
	for i := range all {
		if all[i].Name == name && name != "" {
			all[i].Note = "primary"
		}
	}
	return all
}

// noteGrowth records which readers have a higher count than before. A reader without an earlier count is new, and what
// it counts belongs to its start.
func (l *Log) noteGrowth(at time.Time, kind, text string, before, now map[string]int64) {
	var names []string
	for _, p := range l.last.Processes {
		count, known := now[p.Name]
		earlier, compared := before[p.Name]
		if known && compared && count > earlier {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	if n := len(l.events); n > 0 {
		if e := &l.events[n-1]; e.Kind == kind && at.Sub(time.UnixMilli(e.End)) < together {
			for _, name := range strings.Split(e.Process, ",") {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			e.End, e.Process, e.Count = at.UnixMilli(), strings.Join(names, ","), max(e.Count, 1)+1
			e.Text = fmt.Sprintf("%s %s, %d times", list(names), text, e.Count)
			return
		}
	}
	l.note(at, kind, strings.Join(names, ","), list(names)+" "+text)
}

// review ends an event if everything is well again.
func (l *Log) review(g *going, o Observation) {
	if g.process == "" {
		switch {
		case g.finished && !g.good:
			l.end(g, o.Time, g.what, Bad)
		case g.finished:
			l.conclude(g, o)
		}
		return
	}
	since := o.Time.Sub(g.begin)
	if since < g.fault {
		return
	}
	p, exists := find(o.Processes, g.process)
	if !exists {
		if g.gone.IsZero() {
			g.gone = o.Time
		}
		if o.Time.Sub(g.gone) >= max(goneAfter, o.Delay) { // one list without it may be incomplete
			if g.role == state.Reader {
				l.removed[g.process] = true
			}
			l.end(g, o.Time, "it was removed", Good)
		}
		return
	}
	g.gone = time.Time{}
	if !l.recovered(g, p, o) {
		g.healthy, g.compared = time.Time{}, nil
		if since > g.fault+overdue {
			l.end(g, o.Time, fmt.Sprintf("not well again after %.0f s", since.Seconds()), Bad)
		}
		return
	}
	if g.healthy.IsZero() {
		g.healthy = o.Time
		return // the totals and digests of the next observation include everything until now
	}
	if o.Time.Sub(g.healthy) < o.Delay {
		return
	}
	is := "ready again"
	if g.kind == Killed || g.kind == Left {
		is = "back"
	}
	g.what = fmt.Sprintf("%s after %.1f s", is, g.healthy.Sub(g.begin).Seconds())
	l.conclude(g, o)
}

// conclude ends an event after which everything is well again, once the digest of each reader was compared with that of
// another one.
func (l *Log) conclude(g *going, o Observation) {
	if g.compared == nil {
		g.compared, g.since = make(map[string]bool), o.Time
	}
	agreement, compared := Compare(o.Digests)
	for _, name := range compared {
		g.compared[name] = true
	}
	missing := slices.DeleteFunc(slices.Sorted(maps.Keys(o.Digests)), func(name string) bool { return g.compared[name] })
	switch {
	case agreement == Differ:
		l.end(g, o.Time, g.what+"; the readers' digests DIFFER", Bad)
	case len(o.Digests) < 2:
		l.end(g, o.Time, g.what, Good)
	case len(missing) == 0:
		l.end(g, o.Time, g.what+"; the readers' digests are identical", Good)
	case o.Time.Sub(g.since) >= digestWait:
		l.end(g, o.Time, g.what+"; not compared: the digest of "+list(missing), Unproven)
	}
}

// recovered reports whether the process of an event, and what depends on it, is well again.
func (l *Log) recovered(g *going, p state.Process, o Observation) bool {
	if p.State != state.Ready || g.kind == Killed && g.pid != 0 && p.PID == g.pid {
		return false
	}
	if g.role != state.Redis {
		return true
	}
	return !slices.ContainsFunc(o.Processes, func(other state.Process) bool {
		return (other.Role == state.Reader || other.Role == state.Writer) && other.State != state.Ready &&
			!slices.ContainsFunc(l.open, func(g *going) bool { return g.process == other.Name })
	})
}
