package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// childrenCPU adds up the CPU time of the children of a process. It is not known without /proc.
func childrenCPU(parent int) (time.Duration, bool) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return 0, false
	}
	var sum time.Duration
	found := false
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		if ppid, cpu, err := parseStat(string(b)); err == nil && ppid == parent {
			sum += cpu
			found = true
		}
	}
	return sum, found
}

// parseStat reads the parent and the CPU time out of a line of /proc/<pid>/stat.
func parseStat(line string) (parent int, cpu time.Duration, err error) {
	// The name of the program, in parentheses, may hold anything: fields are counted after it.
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const ppid, utime, stime = 1, 11, 12
	if len(fields) <= stime {
		return 0, 0, fmt.Errorf("%d fields", len(fields))
	}
	if parent, err = strconv.Atoi(fields[ppid]); err != nil {
		return 0, 0, err
	}
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		cpu += time.Duration(n) * tick
	}
	return parent, cpu, nil
}
