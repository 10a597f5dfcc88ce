package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"heavy-read-api/internal/load"
	"heavy-read-api/internal/stack/control"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/state"
)

const (
	settleWait  = 60 * time.Second  // longest wait for the whole stack to be well before a step
	outcomeWait = 120 * time.Second // longest wait for the outcome of a step
	restoreWait = 30 * time.Second  // longest wait for the number of readers that there was
)

// demo breaks the stack in one way after the other while load is on it, and prints what happened. It starts the stack
// if it does not run, and stops it then. It returns an error unless every outcome is good.
func (p *program) demo(c choice, r runtime) (err error) {
	if _, stopped := r.state(); stopped != nil {
		if !errors.Is(stopped, errNotRunning) {
			return stopped
		}
		fmt.Fprintln(p.out, "The stack does not run: starting it for the demo.")
		if err := p.start(c); err != nil {
			return err
		}
		if r, err = p.started(); err != nil {
			return err
		}
		defer func() {
			fmt.Fprintln(p.out, "Stopping the stack, which was started for the demo.")
			p.ctx = context.WithoutCancel(p.ctx)
			err = errors.Join(err, r.stop())
		}()
	}
	s, err := r.stage()
	if err != nil {
		return err
	}
	defer s.close()
	tour, err := p.newTour(s)
	if err != nil {
		return err
	}
	return tour.run()
}

// started returns the runtime in which the stack was just started: p.start may have chosen another one.
func (p *program) started() (runtime, error) {
	c, err := choose(p.ctx)
	if err != nil {
		return nil, err
	}
	return p.runtime(c)
}

// tour is one run of the demo.
type tour struct {
	*program
	stage   stage
	printed int64 // id of the newest event whose line was printed
	good    int
	bad     int  // outcomes that are not good
	scaled  bool // the number of readers is not what it was
}

// newTour returns a tour that prints only what happens from now on.
func (p *program) newTour(s stage) (*tour, error) {
	story, err := s.story(p.ctx)
	if err != nil {
		return nil, err
	}
	t := &tour{program: p, stage: s}
	for _, e := range story.Events {
		t.printed = max(t.printed, e.ID)
	}
	return t, nil
}

// step is one thing that is done to the stack, and the kind of its event.
type step struct {
	event, process string
	do             func() error
}

func (t *tour) run() error {
	st, err := t.settled()
	if err != nil {
		return err
	}
	begin, err := t.stage.story(t.ctx)
	if err != nil {
		return err
	}
	if _, local := t.stage.(*controlled); local {
		fmt.Fprintln(t.out, "Each line is an event and its outcome. The dashboard shows the same list.")
	} else { // it only sees what the containers do
		fmt.Fprintln(t.out, "Each line is an event and its outcome. The dashboard shows what it sees of them.")
	}
	if !loaded(st) {
		if err := t.stage.setLoad(t.ctx, load.DefaultReads, load.DefaultWrites); err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), stopLoadTimeout)
			defer cancel()
			_ = t.stage.setLoad(ctx, 0, 0) // the stack may be gone by now
		}()
	}
	wait, cancel := context.WithTimeout(t.ctx, settleWait)
	defer cancel()
	if !poll.Until(wait, func() bool {
		now, err := t.stage.story(t.ctx)
		return err == nil && now.Totals.Reads > begin.Totals.Reads+load.DefaultReads
	}) {
		return t.gaveUp(errors.New("the load does not reach the gateway: make health and make logs show why"))
	}
	if err := t.skipFirstSnapshot(); err != nil {
		return err
	}
	defer t.restoreReaders(len(inRotation(st)))
	for _, next := range []func(state.Stack) step{
		t.reader("kill", events.Killed, 1), t.reader("freeze", events.Frozen, 0), t.cut,
		t.redis("kill", events.Killed), t.redis("freeze", events.Frozen), t.readers(1), t.readers(-1),
	} {
		st, err := t.settled()
		if err != nil {
			return err
		}
		if err := t.take(next(st)); err != nil {
			return err
		}
	}
	end, err := t.end()
	if err != nil {
		return err
	}
	failed := end.Totals.Failed - begin.Totals.Failed
	fmt.Fprintf(t.out, "%d of %d outcomes are good. %s of %s reads failed.\n", t.good, t.good+t.bad,
		humanize.Comma(failed), humanize.Comma(end.Totals.Reads-begin.Totals.Reads))
	if t.bad > 0 || failed > 0 {
		return fmt.Errorf("%d outcomes are not good, and %s reads failed", t.bad, humanize.Comma(failed))
	}
	return nil
}

// restoreReaders brings the number of readers back to n if the demo ends between adding and removing one.
func (t *tour) restoreReaders(n int) {
	if !t.scaled {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), restoreWait)
	defer cancel()
	fmt.Fprintf(t.out, "Bringing the number of readers back to %d.\n", n)
	var err error
	if !poll.Until(ctx, func() bool { err = t.stage.setReaders(ctx, n); return err == nil }) { // the interrupted change may go on
		fmt.Fprintln(t.err, "warning:", err)
	}
}

// skipFirstSnapshot prints what happened while the load started. The first write to an empty Redis begins its history, and
// every reader loads it with a snapshot: that is no outcome of the demo.
func (t *tour) skipFirstSnapshot() error {
	if _, err := t.settled(); err != nil {
		return err
	}
	story, err := t.stage.story(t.ctx)
	if err != nil {
		return err
	}
	for _, e := range story.Events {
		if e.ID > t.printed && e.Kind == events.LoadStarted {
			fmt.Fprintln(t.out, "    ", e)
		}
		t.printed = max(t.printed, e.ID)
	}
	return nil
}

// end waits until every event is over, prints those that have not been printed, and returns the story.
func (t *tour) end() (control.Story, error) {
	ctx, cancel := context.WithTimeout(t.ctx, outcomeWait)
	defer cancel()
	var last control.Story
	var err error
	over := poll.Until(ctx, func() bool {
		last, err = t.stage.story(t.ctx)
		return err == nil && !slices.ContainsFunc(last.Events, func(e events.Event) bool { return e.End == 0 })
	})
	if !over {
		return last, t.gaveUp(errors.Join(err, fmt.Errorf("an event has no outcome after %s", outcomeWait)))
	}
	t.print(last.Events)
	return last, nil
}

// gaveUp returns the error of a wait that has ended too early because of an interrupt, or too late because of err.
func (t *tour) gaveUp(err error) error {
	if t.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// settled waits until every process is ready and none degraded.
func (t *tour) settled() (state.Stack, error) {
	ctx, cancel := context.WithTimeout(t.ctx, settleWait)
	defer cancel()
	var st state.Stack
	var err error
	if !poll.Until(ctx, func() bool { st, err = t.stage.state(); return err == nil && st.Well() }) {
		return st, t.gaveUp(errors.Join(err, fmt.Errorf("the stack is not well: %s", cmp.Or(st.MissingText(), "a process is degraded"))))
	}
	return st, nil
}

// take does one step and waits for its outcome. It prints every event until then.
func (t *tour) take(s step) error {
	if s.do == nil {
		return nil // not possible in this layout
	}
	from := t.printed
	if err := s.do(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.ctx, outcomeWait)
	defer cancel()
	over := poll.Until(ctx, func() bool {
		story, err := t.stage.story(t.ctx)
		if err != nil {
			return false
		}
		t.print(story.Events)
		return slices.ContainsFunc(story.Events, func(e events.Event) bool {
			return e.ID > from && e.ID <= t.printed && e.Kind == s.event && (s.process == "" || e.Process == s.process)
		})
	})
	if !over {
		return t.gaveUp(fmt.Errorf("no outcome after %s", outcomeWait))
	}
	return nil
}

// print prints the events that are over, in their order: it stops at the first that goes on.
func (t *tour) print(all []events.Event) {
	for _, e := range all {
		if e.ID <= t.printed {
			continue
		}
		if e.End == 0 {
			return
		}
		mark := "    "
		switch e.Verdict {
		case events.Good:
			mark = "ok  "
			t.good++
		case events.Bad:
			mark = "BAD "
			t.bad++
		case events.Unproven:
			mark = "??  "
			t.bad++
		}
		fmt.Fprintln(t.out, mark, e)
		t.printed = e.ID
	}
}

// inRotation returns the names of the readers behind the gateway.
func inRotation(st state.Stack) []string {
	var names []string
	for _, p := range st.Processes {
		if p.Role == state.Reader && !strings.Contains(p.Name, "direct") {
			names = append(names, p.Name)
		}
	}
	return names
}

// reader returns a step that injects a fault into a reader; of fewer readers it is the last one.
func (t *tour) reader(fault, event string, index int) func(state.Stack) step {
	return func(st state.Stack) step {
		names := inRotation(st)
		if len(names) == 0 {
			return step{}
		}
		name := names[min(index, len(names)-1)]
		return step{event, name, func() error { return t.stage.fault(fault, name) }}
	}
}

// cut cuts the last reader off from Redis, where that is possible.
func (t *tour) cut(st state.Stack) step {
	if _, local := t.stage.(*controlled); local && st.Redis.Layout != layout.Single {
		return step{}
	}
	return t.reader("cut", events.Cut, len(st.Processes))(st)
}

// redis returns a step that injects a fault into the primary. A Redis that the stack did not start is left alone.
func (t *tour) redis(fault, event string) func(state.Stack) step {
	return func(st state.Stack) step {
		name := ""
		for _, p := range st.Processes {
			if p.Role == state.Redis && !p.External && (name == "" || strings.HasPrefix(p.Note, "primary")) {
				name = p.Name
			}
		}
		if name == "" {
			return step{}
		}
		if fault == "kill" && st.Redis.InMemory {
			fmt.Fprintln(t.out, "     Redis is not killed: the embedded one keeps the posts in memory only (install redis-server to try it).")
			return step{}
		}
		return step{event, name, func() error { return t.stage.fault(fault, name) }}
	}
}

// readers returns a step that adds readers, or removes them.
func (t *tour) readers(change int) func(state.Stack) step {
	return func(st state.Stack) step {
		n := len(inRotation(st)) + change
		if n < 1 || n > layout.MaxReaders {
			return step{}
		}
		return step{events.Scaled, "", func() error {
			t.scaled = true
			err := t.stage.setReaders(t.ctx, n)
			t.scaled = err != nil || change > 0
			return err
		}}
	}
}
