// Package clocktest simulates steps of the system's clock.
package clocktest

import (
	"testing"
	"time"
	"unsafe"
)

// Step returns now with its wall clock moved by d and its monotonic reading unchanged, as after a step
// of the system's clock.
func Step(t testing.TB, now time.Time, d time.Duration) time.Time {
	t.Helper()
	moved := now
	// A Time with a monotonic reading begins with a flag, 33 bits of seconds and 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(d/time.Second) << 30
	if moved.Sub(now) != 0 || moved.Round(0).Sub(now.Round(0)) != d {
		t.Fatalf("a step of %v made %v of %v: package time has changed", d, moved, now)
	}
	return moved
}
