package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"heavy-read-api/internal/dashboard"
)

// progress prints each process of a start as it becomes ready.
type progress struct {
	out  io.Writer
	told map[string]bool // by name of the process
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, told: make(map[string]bool)}
}

// await writes a line for each process that becomes ready, in whatever order they do, until the stack
// is settled or ctx is done. It returns the newest state.
func (p *progress) await(ctx context.Context, state func(context.Context) (State, error)) State {
	var newest State
	await(ctx, func() bool {
		st, err := state(ctx)
		if err != nil || ctx.Err() != nil {
			return false // the control interface is not up yet, or the look was cut short
		}
		newest = st
		for _, proc := range st.Processes {
			if settled(proc) && !p.told[proc.Name] {
				p.told[proc.Name] = true
				fmt.Fprintf(p.out, "  %-14s ready on %s%s%s\n", proc.Name, proc.Address, pidText(proc), noteText(proc))
			}
		}
		return st.settled()
	})
	return newest
}

// announce tells when everything is ready, and where it is. What is not ready after startWait is told
// once. It returns an error when Redis refuses the settings of a process, which no waiting mends.
func (s *stack) announce(ctx context.Context) error {
	ctx, refused := context.WithCancelCause(ctx)
	defer refused(nil)
	var since time.Time // when Redis was first seen to refuse
	look := func(ctx context.Context) (State, error) {
		st := s.state(ctx)
		switch why := st.refused(); {
		case why == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= refusedWait:
			refused(errors.New(why))
		}
		return st, nil
	}
	p := newProgress(s.cfg.Out)
	bound, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	st := p.await(bound, look)
	if !st.settled() && ctx.Err() == nil {
		fmt.Fprintf(s.cfg.Out, "not ready after %s: %s; still waiting, the logs are in %s\n", startWait, st.missingText(), s.cfg.RunDir)
		st = p.await(ctx, look)
	}
	if st.settled() {
		s.cfg.printAddresses(s.cfg.Out)
		return nil
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// refusedWait is how long a process may be refused by Redis before its start is given up.
const refusedWait = 2 * time.Second

// refusals are the words of a Redis that does not take the settings it is used with, and which these are.
var refusals = []struct{ words, settings string }{
	{"WRONGPASS", "REDIS_USERNAME and REDIS_PASSWORD"},
	{"invalid password", "REDIS_PASSWORD"},
	{"NOAUTH", "REDIS_PASSWORD"},
	{"without any password configured", "REDIS_PASSWORD"},
	{"DB index is out of range", "REDIS_DB"},
	{"no such host", "REDIS_ADDR"},
	{"NOPERM", "the access list of Redis"},
}

// refused returns why a process is not ready that Redis refuses, and which settings to change, or "".
func (st State) refused() string {
	for _, p := range st.Processes {
		for _, r := range refusals {
			if p.State == dashboard.NotReady && strings.Contains(p.Detail, r.words) {
				return fmt.Sprintf("%s cannot work: %s (check %s)", p.Name, p.Detail, r.settings)
			}
		}
	}
	return ""
}

func (c *Config) printAddresses(out io.Writer) {
	fmt.Fprintf(out, `
The stack is up:
  dashboard      http://localhost:%d
  write          http://localhost:%d/create
  read           http://localhost:%d/post?id=...   (gateway, all readers)
  read directly  http://localhost:%d/post?id=...   (reader-direct)
  metrics        http://localhost:%d%s and /metrics of every process
  logs           %s
  posts are in   %s
`, c.Port, c.WriterPort, c.GatewayPort, c.DirectPort, c.GatewayMetricsPort, gatewayMetricsPath, c.RunDir, c.redisNote())
}

func pidText(p dashboard.Process) string {
	if p.PID == 0 {
		return ""
	}
	return fmt.Sprintf(", pid %d", p.PID)
}

func noteText(p dashboard.Process) string {
	if p.Note == "" {
		return ""
	}
	return ": " + p.Note
}

// printState writes a line for each process: ready, or why not.
func printState(out io.Writer, st State) {
	for _, p := range st.Processes {
		pid := "-"
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		line := fmt.Sprintf("%-14s %-7s %-15s %s", p.Name, pid, p.Address, p.State)
		if p.Note != "" {
			line += ", " + p.Note
		}
		if p.External {
			line += ", not ours (REDIS_ADDR)"
		}
		if p.Restarts == 1 {
			line += ", restarted once"
		} else if p.Restarts > 1 {
			line += fmt.Sprintf(", restarted %d times", p.Restarts)
		}
		if p.Detail != "" {
			line += ": " + p.Detail
		}
		fmt.Fprintln(out, line)
	}
	if !st.Complete {
		fmt.Fprintln(out, "the stack is still starting")
	}
}
