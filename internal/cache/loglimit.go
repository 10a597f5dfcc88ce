package cache

import "time"

// logLimit logs one line of its kind per logInterval and counts the others, so that a fault that
// repeats thousands of times a second does not fill the disk. Its zero value is ready; one goroutine
// may use it.
type logLimit struct {
	next    time.Time
	omitted int // lines since the last one that was logged
}

const logInterval = 10 * time.Second

// log logs a line, or counts it as omitted.
func (l *logLimit) log(to func(msg string, args ...any), now time.Time, msg string, args ...any) {
	if now.Before(l.next) {
		l.omitted++
		return
	}
	if l.omitted > 0 {
		args = append(args, "omitted_lines", l.omitted)
	}
	l.next, l.omitted = now.Add(logInterval), 0
	to(msg, args...)
}
