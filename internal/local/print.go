package local

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

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

// stats measures the stack for p.pause. It prints a line per reader, followed by the reasons why readers are degraded or
// not ready.
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
		case state.Reader:
			readers++
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", proc.Name, proc.State,
				number(m, "reads", 1, ""), number(m, "p99", 1e3, " ms"), number(m, "propagation_p99", 1e3, " ms"),
				number(m, "entries", 1, ""), mebibytes(m, "cache_bytes"),
				mebibytes(m, "memory"), number(m, "version", 1, ""), number(m, "lag", 1, ""))
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
	fmt.Fprintf(p.out, "gateway %s reads/s, p99 %s; writer %s writes/s; measured for %s\n",
		number(gateway, "reads", 1, ""), number(gateway, "p99", 1e3, " ms"), number(writer, "writes", 1, ""), p.pause)
	for _, r := range reasons {
		fmt.Fprintln(p.out, r)
	}
	return nil
}

// number formats a measurement in a unit; without a value it is a dash.
func number(values measure.Values, name string, scale float64, unit string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	v *= scale
	if v == float64(int64(v)) || v >= 1000 {
		return fmt.Sprintf("%.0f%s", v, unit)
	}
	return fmt.Sprintf("%.3g%s", v, unit)
}

// mebibytes formats a size; without a value it is a dash.
func mebibytes(values measure.Values, name string) string {
	v, ok := values[name]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", v/(1<<20))
}
