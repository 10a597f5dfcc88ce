package stack

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"heavy-read-api/internal/dashboard"
)

// reportProgress writes a line for each process that becomes ready, in whatever order they do,
// until all are or ctx is done. It returns the newest state.
func reportProgress(ctx context.Context, out io.Writer, state func(context.Context) (State, error)) State {
	var newest State
	told := make(map[string]bool)
	await(ctx, func() bool {
		st, err := state(ctx)
		if err != nil {
			return false // the control interface is not up yet
		}
		newest = st
		for _, p := range st.Processes {
			if p.Up() && !told[p.Name] {
				told[p.Name] = true
				fmt.Fprintf(out, "  %-14s ready on %s%s\n", p.Name, p.Address, pidText(p))
			}
		}
		return st.ready()
	})
	return newest
}

// announce tells when everything is ready, and where it is.
func (s *stack) announce(ctx context.Context) {
	st := reportProgress(ctx, s.cfg.Out, func(ctx context.Context) (State, error) { return s.state(ctx), nil })
	if st.ready() {
		s.cfg.printAddresses(s.cfg.Out)
	}
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

// printState writes a line for each process: ready, or why not.
func printState(out io.Writer, st State) {
	for _, p := range st.Processes {
		pid := "-"
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		line := fmt.Sprintf("%-14s %-7s %-15s %s", p.Name, pid, p.Address, p.State)
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
