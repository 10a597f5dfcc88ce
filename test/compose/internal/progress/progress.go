// Package progress prints what a long test run is doing.
package progress

import (
	"fmt"
	"time"
)

var start = time.Now()

const (
	slow     = 2 * time.Second  // work that is faster is not worth a line
	interval = 15 * time.Second // time between two lines about the same work
)

// Printf prints a line that begins with the seconds since the start of the process.
func Printf(format string, args ...any) {
	fmt.Printf("%5.0f s  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
}

// During runs f and prints what is going on while f is slow.
func During(what string, f func() error) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(slow)
	defer timer.Stop()
	for announced := false; ; announced = true {
		select {
		case err := <-done:
			return err
		case <-timer.C:
		}
		if announced {
			Printf("%s: still running after %.0f s", what, time.Since(began).Seconds())
		} else {
			Printf("%s", what)
		}
		timer.Reset(interval)
	}
}
