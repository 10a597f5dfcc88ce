// Package loglimit keeps a fault that repeats thousands of times a second from filling the disk.
package loglimit

import (
	"sync"
	"time"
)

// Interval is the least time between two lines of a kind.
const Interval = 10 * time.Second

// Limit logs one line of its kind per Interval and counts the others. Its zero value is ready for use by
// many goroutines.
type Limit struct {
	mu      sync.Mutex // guards what follows
	next    time.Time
	omitted int // lines since the last one that was logged
}

// Log logs a line by to, with the number of lines omitted since the last one, or omits it. now is the
// present time.
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
	l.next, l.omitted = now.Add(Interval), 0
	l.mu.Unlock()
	to(msg, args...)
}
