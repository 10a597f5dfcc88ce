// Package loglimit limits the rate of log lines, so that a fault that occurs thousands of times a second
// does not fill the disk.
package loglimit

import (
	"sync"
	"time"
)

// interval is the least time between two lines of a kind.
const interval = 10 * time.Second

// Limit logs one line of its kind per interval and counts the others. Its zero value is ready for use by
// many goroutines.
type Limit struct {
	mu      sync.Mutex // guards the fields below
	next    time.Time  // time from which the next line is logged
	omitted int        // number of lines omitted since the last one that was logged
}

// Log logs a line by calling to, or omits it if the last line was logged less than Interval before now, the
// current time. A line after omitted ones gets the attribute omitted_lines. Log does not block, but to may.
func (l *Limit) Log(to func(msg string, args ...any), now time.Time, msg string, args ...any) {
	l.mu.Lock()
	if now.Before(l.next) {
		l.omitted++
		l.mu.Unlock()
		return
	}
	if l.omitted > 0 {
		args = append(args, "omitted_lines", l.omitted)
	}
	l.next, l.omitted = now.Add(interval), 0
	l.mu.Unlock()
	to(msg, args...)
}
