package local

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"heavy-read-api/internal/load"
	"heavy-read-api/internal/stack/state"
)

// stopLoadTimeout bounds the stop of the load after an interrupt.
const stopLoadTimeout = 15 * time.Second

// load puts load on the stack until it is interrupted, and prints how many reads have failed.
func (p *program) load(r runtime) error {
	cfg, err := load.ParseConfig(nil, os.Getenv)
	if err != nil {
		return usageError{err}
	}
	s, err := r.stage()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.setLoad(p.ctx, cfg.Reads, cfg.Writes); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "Load: %d reads/s through the gateway, %d writes/s, until Ctrl-C.\n", cfg.Reads, cfg.Writes)
	begun := time.Now()
	first, err := s.story(p.ctx)
	last := first
	for p.wait(p.pause) == nil {
		now, err := s.story(p.ctx)
		if err != nil {
			continue // the stack is busy, or was stopped, which the last line reports
		}
		reads, failed := now.Totals.Reads-first.Totals.Reads, now.Totals.Failed-first.Totals.Failed
		fmt.Fprintf(p.out, "%s  %s reads/s; %s of %s reads failed\n", time.Now().Format(time.TimeOnly),
			humanize.Comma((now.Totals.Reads-last.Totals.Reads)*int64(time.Second)/int64(p.pause)), humanize.Comma(failed), humanize.Comma(reads))
		last = now
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), stopLoadTimeout)
	defer cancel()
	if now, err := s.story(ctx); err == nil { // before the load and its counters are gone
		last = now
	}
	if stopErr := s.setLoad(ctx, 0, 0); err == nil {
		err = stopErr
	}
	fmt.Fprintf(p.out, "The load ran for %s: %s of %s reads failed.\n", time.Since(begun).Round(time.Second),
		humanize.Comma(last.Totals.Failed-first.Totals.Failed), humanize.Comma(last.Totals.Reads-first.Totals.Reads))
	return err
}

// loaded reports whether the load generator runs.
func loaded(st state.Stack) bool {
	return slices.ContainsFunc(st.Processes, func(p state.Process) bool { return p.Role == state.Load })
}
