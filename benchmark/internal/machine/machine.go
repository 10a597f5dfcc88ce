// Package machine measures how much CPU time unrelated work takes during a benchmark, so that its effect is not
// attributed to the stack.
package machine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Bounds of a quiet machine, as shares of the CPU time of all cores. Outside of them a measurement says more
// about the machine than about the stack.
const (
	maxOthers = 0.10 // used by processes outside of the stack and the benchmark
	maxSteal  = 0.05 // taken by the hypervisor
	minIdle   = 0.80 // idle share before a part, when the stack and the benchmark have nothing to do
)

// Unknown is a share that could not be measured.
const Unknown = -1

// Activity is the CPU time of unrelated work during a part. Shares are of all cores.
type Activity struct {
	IdleBefore float64 // idle share right before the part
	Others     float64 // used by processes outside of the stack and the benchmark
	Steal      float64 // taken by the hypervisor
	Load       float64 // load average of the last minute, at the end of the part
}

// Busy returns the reason why the machine was not quiet during the part, or "".
func (a Activity) Busy() string {
	switch {
	case a.Steal > maxSteal:
		return fmt.Sprintf("the hypervisor took %.0f %% of the CPU time", 100*a.Steal)
	case a.Others > maxOthers:
		return fmt.Sprintf("other processes used %.0f %% of the CPU time", 100*a.Others)
	case a.IdleBefore != Unknown && a.IdleBefore < minIdle:
		return fmt.Sprintf("the CPU was only %.0f %% idle before the part", 100*a.IdleBefore)
	}
	return ""
}

// Meter measures one part. Without /proc every value is Unknown.
type Meter struct {
	trees      []int // roots of the process trees of the stack and the benchmark; empty when unknown
	idleBefore float64
	began      sample
	known      bool // began was read
}

// window is the length of one measurement of the idle share.
const window = 300 * time.Millisecond

// Begin waits for at most maxWait until the machine is idle, and then starts measuring. trees are the pids of
// the processes whose descendants are the stack and the benchmark.
func Begin(ctx context.Context, trees []int, maxWait time.Duration) Meter {
	m := Meter{trees: trees, idleBefore: Unknown}
	for deadline := time.Now().Add(maxWait); ; {
		before, err := read(nil)
		if err != nil {
			return m
		}
		select {
		case <-ctx.Done():
			return m
		case <-time.After(window):
		}
		after, err := read(nil)
		if err != nil {
			return m
		}
		m.idleBefore = share(after.idle-before.idle, after.total-before.total)
		if m.idleBefore >= minIdle || time.Now().After(deadline) {
			break
		}
	}
	var err error
	m.began, err = read(trees)
	m.known = err == nil
	return m
}

// End returns the activity since Begin.
func (m Meter) End() Activity {
	a := Activity{IdleBefore: m.idleBefore, Others: Unknown, Steal: Unknown, Load: Unknown}
	if !m.known {
		return a
	}
	now, err := read(m.trees)
	if err != nil {
		return a
	}
	total := now.total - m.began.total
	a.Steal = share(now.steal-m.began.steal, total)
	if len(m.trees) > 0 {
		a.Others = max(0, share(now.processes-m.began.processes-(now.ours-m.began.ours), total))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(text), " "); ok {
			if load, err := strconv.ParseFloat(first, 64); err == nil {
				a.Load = load
			}
		}
	}
	return a
}

func share(part, total time.Duration) float64 {
	if total <= 0 {
		return 0
	}
	return part.Seconds() / total.Seconds()
}

// sample is a reading of the kernel's CPU counters, summed over all cores.
type sample struct {
	idle, steal, total time.Duration
	processes          time.Duration // user and system time, without interrupts
	ours               time.Duration // CPU time of the trees and of the kernel threads
}

func read(trees []int) (sample, error) {
	if runtime.GOOS != "linux" {
		return sample{}, fmt.Errorf("read the CPU counters: %s has no /proc", runtime.GOOS)
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return sample{}, fmt.Errorf("read the CPU counters: %w", err)
	}
	s, err := parseCounters(string(text))
	if err != nil || len(trees) == 0 {
		return s, err
	}
	s.ours, err = TreeCPU(append([]int{kthreadd}, trees...)...)
	return s, err
}

// parseCounters reads the first line of /proc/stat.
func parseCounters(text string) (sample, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	const user, nice, system, idle, iowait, steal = 1, 2, 3, 4, 5, 8
	if len(fields) <= steal || fields[0] != "cpu" {
		return sample{}, fmt.Errorf("read the CPU counters: unexpected line %q", line)
	}
	var v [steal + 1]time.Duration
	var s sample
	for i := user; i <= steal; i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return sample{}, fmt.Errorf("read the CPU counters: %w", err)
		}
		v[i] = time.Duration(n) * tick
		s.total += v[i]
	}
	s.idle, s.steal, s.processes = v[idle]+v[iowait], v[steal], v[user]+v[nice]+v[system]
	return s, nil
}
