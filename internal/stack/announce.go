package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/poll"
	"heavy-read-api/internal/stack/state"
)

// Progress prints each process of a start as it becomes ready.
type Progress struct {
	out     io.Writer
	printed map[string]bool // by name of the process
}

// NewProgress returns a progress that has printed nothing yet.
func NewProgress(out io.Writer) *Progress {
	return &Progress{out: out, printed: make(map[string]bool)}
}

// Await prints a line for each process that becomes ready, until the stack is settled or ctx is done. It
// returns the last state.
func (p *Progress) Await(ctx context.Context, current func(context.Context) (state.Stack, error)) state.Stack {
	var last state.Stack
	poll.Until(ctx, func() bool {
		st, err := current(ctx)
		if err != nil || ctx.Err() != nil {
			return false // the control API is not up yet, or ctx ended during the health checks
		}
		last = st
		for _, proc := range st.Processes {
			if proc.Settled() && !p.printed[proc.Name] {
				p.printed[proc.Name] = true
				is := "ready on"
				if proc.External {
					is = "answers on" // the check does not log in; writer and readers report whether Redis accepts their login
				}
				fmt.Fprintf(p.out, "  %-14s %s %s%s%s\n", proc.Name, is, proc.Address, pidText(proc), noteText(proc))
			}
		}
		return st.Settled()
	})
	return last
}

// announce prints each process as it becomes ready, and the addresses once all are. After StartWait it prints once what
// is missing. It returns an error if Redis refuses the settings of a process, because waiting would not change that.
func (s *stack) announce(ctx context.Context) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var since time.Time // time of the first refusal by Redis
	check := func(ctx context.Context) (state.Stack, error) {
		st := s.State(ctx)
		switch why := refused(st); {
		case why == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= refusedWait:
			giveUp(errors.New(why))
		}
		return st, nil
	}
	p := NewProgress(s.cfg.Out)
	bound, cancel := context.WithTimeout(ctx, StartWait)
	defer cancel()
	st := p.Await(bound, check)
	s.started.Store(true)
	if !st.Settled() && ctx.Err() == nil {
		fmt.Fprintf(s.cfg.Out, "not ready after %s: %s; still waiting, the logs are in %s\n", StartWait, st.MissingText(), s.cfg.RunDir)
		st = p.Await(ctx, check)
	}
	if st.Settled() {
		PrintAddresses(s.cfg, st)
		return nil
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// refusedWait is the time for which Redis may refuse a process before the start fails.
const refusedWait = 2 * time.Second

// refusals maps errors with which Redis refuses a setting to that setting.
var refusals = []struct{ words, settings string }{
	{"WRONGPASS", "REDIS_USERNAME and REDIS_PASSWORD"},
	{"invalid password", "REDIS_PASSWORD"},
	{"NOAUTH", "REDIS_PASSWORD"},
	{"without any password configured", "REDIS_PASSWORD"},
	{"DB index is out of range", "REDIS_DB"},
	{"no such host", "REDIS_ADDR"},
	{"NOPERM", "the access list of Redis"},
}

// refused returns why Redis refuses a process or every connection, and which settings to change, or "" if it refuses
// none.
func refused(st state.Stack) string {
	for _, p := range st.Processes {
		// Of several addresses, one that refuses the connection does not keep the stack from working.
		if p.External && !strings.Contains(p.Address, ",") && p.State == state.NotReady && p.Detail == "connection refused" {
			return fmt.Sprintf("REDIS_ADDR=%s: %s; start that Redis or change the address", p.Address, p.Detail)
		}
		for _, r := range refusals {
			if p.State == state.NotReady && strings.Contains(p.Detail, r.words) {
				return fmt.Sprintf("%s cannot work: %s (check %s)", p.Name, p.Detail, r.settings)
			}
		}
	}
	return ""
}

// PrintAddresses prints where the stack of this configuration is, and the notes of its state.
func PrintAddresses(c layout.Config, st state.Stack) {
	fmt.Fprintf(c.Out, `
The stack is up:
  dashboard      http://localhost:%d
  write          http://localhost:%d/create
  read           http://localhost:%d/post?id=...   (gateway, all readers)
  read directly  http://localhost:%d/post?id=...   (reader-direct)
  metrics        http://localhost:%d%s and /metrics of every process
  logs           %s
  posts are in   %s
`, c.Port, c.WriterPort, c.GatewayPort, c.DirectPort, c.GatewayMetricsPort, layout.GatewayMetricsPath, c.RunDir, c.RedisNote())
	for _, p := range st.Processes {
		if p.Role == state.Prometheus {
			fmt.Fprintf(c.Out, "  Prometheus     http://localhost:%d/alerts\n", c.PrometheusPort)
		}
	}
	for _, note := range st.Notes {
		fmt.Fprintf(c.Out, "  note           %s\n", note)
	}
}

func pidText(p state.Process) string {
	if p.PID == 0 {
		return ""
	}
	return fmt.Sprintf(", pid %d", p.PID)
}

func noteText(p state.Process) string {
	if p.Note == "" {
		return ""
	}
	return ": " + p.Note
}
