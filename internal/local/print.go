package local

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"heavy-read-api/internal/stack/measure"
	"heavy-read-api/internal/stack/state"
)

// health prints the state of the stack. It fails when a process is not ready.
func (p *program) health(r runtime) error {
	st, err := r.state()
	if err != nil {
		return err
	}
	printHealth(p.out, st)
	if !st.Ready() {
		return errors.New("not everything is ready")
	}
	return nil
}

// printHealth prints a line per process: ready, or why it is not.
func printHealth(out io.Writer, st state.Stack) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range st.Processes {
		pid := "-"
		if p.PID != 0 {
			pid = strconv.Itoa(p.PID)
		}
		line := p.State
		if p.Note != "" {
			line += ", " + p.Note
		}
		if p.External {
			line += ", external (REDIS_ADDR)"
		}
		if p.Restarts == 1 {
			line += ", restarted once"
		} else if p.Restarts > 1 {
			line += fmt.Sprintf(", restarted %d times", p.Restarts)
		}
		if p.Detail != "" {
			line += ": " + p.Detail
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, pid, orDash(p.Address), line)
	}
	w.Flush()
	if !st.Complete {
		fmt.Fprintln(out, "the stack is still starting")
	}
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// stats measures the stack for p.pause. It prints a line per reader, followed by the auditor's verdict and the reasons why
// readers are degraded or not ready.
func (p *program) stats(r runtime) error {
	st, err := r.state()
	if err != nil {
		return err
	}
	c := measure.NewCollector()
	defer c.Close()
	c.Collect(p.ctx, st.Processes)
	timer := time.NewTimer(p.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	values := c.Collect(p.ctx, st.Processes)

	readers := 0
	var reasons []string
	var verdict string // result of the comparison of the readers
	var gateway, writer measure.Values
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "READER\tSTATE\tREADS/S\tP99\tPROPAGATION P99\tPOSTS\tCACHE\tMEMORY\tVERSION\tLAG")
	for _, proc := range st.Processes {
		m := values[proc.Name]
		switch proc.Role {
		case state.Gateway:
			gateway = m
		case state.Writer:
			writer = m
		case state.Auditor:
			verdict = fmt.Sprintf("%s: %s", proc.Name, cmp.Or(proc.Note, proc.StateText()))
		case state.Reader:
			readers++
			proc = current(proc, m)
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", proc.Name, proc.State,
				count(m, "reads"), seconds(m, "p99"), seconds(m, "propagation_p99"), count(m, "entries"), size(m, "cache_bytes"),
				size(m, "memory"), number(m, "version"), number(m, "lag"))
			if proc.Detail != "" {
				reasons = append(reasons, fmt.Sprintf("%s is %s", proc.Name, proc.StateText()))
			}
		}
	}
	if readers == 0 {
		return errors.New("no reader runs: make start")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "gateway %s reads/s, p99 %s; writer %s writes/s; measured over the %s until %s\n",
		count(gateway, "reads"), seconds(gateway, "p99"), count(writer, "writes"), p.pause, time.Now().Format(time.TimeOnly))
	if verdict != "" {
		fmt.Fprintln(p.out, verdict)
	}
	for _, r := range reasons {
		fmt.Fprintln(p.out, r)
	}
	return nil
}

// current returns a reader with the state that its metrics report. The health check of a container is up to five seconds
// older; its reason stays only if the state is still the same.
func current(p state.Process, m measure.Values) state.Process {
	ready, known := m["ready"]
	if !known || p.State == state.Stopping {
		return p
	}
	now := state.Ready
	synced, hasSynced := m["synced"]
	subscribed, hasSubscribed := m["subscribed"]
	switch {
	case ready == 0:
		now = state.NotReady
	case hasSynced && synced == 0 || hasSubscribed && subscribed == 0:
		now = state.Degraded
	}
	if now != p.State {
		p.State, p.Detail = now, ""
	}
	return p
}

// number formats a whole number without separators; without a value it is a dash.
func number(values measure.Values, name string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.0f", v)
}

// count formats a number or a rate for people; without a value it is a dash.
func count(values measure.Values, name string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	if v < 100 {
		return fmt.Sprintf("%.3g", v)
	}
	return humanize.Comma(int64(math.Round(v)))
}

// seconds formats a duration in seconds in the unit that suits it; without a value it is a dash.
func seconds(values measure.Values, name string) string {
	v, ok := values[name]
	switch {
	case !ok:
		return "-"
	case v < 1e-3:
		return fmt.Sprintf("%.3g µs", v*1e6)
	case v < 1:
		return fmt.Sprintf("%.3g ms", v*1e3)
	}
	return fmt.Sprintf("%.3g s", v)
}

// size formats a size; without a value it is a dash.
func size(values measure.Values, name string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	return humanize.IBytes(uint64(max(0, v)))
}
