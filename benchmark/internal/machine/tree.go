package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// tick is the unit of /proc/stat and /proc/<pid>/stat: USER_HZ, 100 on every Linux that Go supports.
	tick = 10 * time.Millisecond
	// kthreadd is the parent of the kernel's threads.
	kthreadd = 2
)

// process is an entry of the kernel's process table.
type process struct {
	pid, parent int
	cpu         time.Duration // CPU time of the process and of its reaped children
}

// TreeCPU adds up the CPU time of processes and all of their descendants. The second of two calls includes a
// descendant that has exited in between, because its time is added to that of its parent.
func TreeCPU(roots ...int) (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return 0, fmt.Errorf("read the processes' CPU time: there is no /proc")
	}
	var all []process
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has exited
		}
		if p, err := parseStat(string(text)); err == nil {
			all = append(all, p)
		}
	}
	return treeCPU(all, roots)
}

func treeCPU(all []process, roots []int) (time.Duration, error) {
	children := make(map[int][]process)
	var next []process
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
		for _, root := range roots {
			if p.pid == root {
				next = append(next, p)
			}
		}
	}
	if len(next) == 0 {
		return 0, fmt.Errorf("read the processes' CPU time: none of %v is running", roots)
	}
	var sum time.Duration
	seen := make(map[int]bool) // a root may be a descendant of another one
	for len(next) > 0 {
		p := next[0]
		next = next[1:]
		if !seen[p.pid] {
			seen[p.pid] = true
			sum += p.cpu
			next = append(next, children[p.pid]...)
		}
	}
	return sum, nil
}

// Parent returns the parent of a process.
func Parent(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the parent of process %d: %w", pid, err)
	}
	p, err := parseStat(string(text))
	return p.parent, err
}

// parseStat reads a line of /proc/<pid>/stat.
func parseStat(line string) (process, error) {
	// The program's name, in parentheses, may contain spaces and parentheses: parse the fields after it.
	pid, _, _ := strings.Cut(line, " ")
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const ppid, utime, cstime = 1, 11, 14
	if len(fields) <= cstime {
		return process{}, fmt.Errorf("parse a process's counters: %d fields", len(fields))
	}
	var p process
	var err error
	if p.pid, err = strconv.Atoi(pid); err != nil {
		return process{}, fmt.Errorf("parse a process's counters: %w", err)
	}
	if p.parent, err = strconv.Atoi(fields[ppid]); err != nil {
		return process{}, fmt.Errorf("parse a process's counters: %w", err)
	}
	for i := utime; i <= cstime; i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("parse a process's counters: %w", err)
		}
		p.cpu += time.Duration(n) * tick
	}
	return p, nil
}
