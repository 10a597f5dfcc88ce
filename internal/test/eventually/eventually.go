// Package eventually waits in tests by polling with a deadline.
package eventually

import (
	"errors"
	"testing"
	"time"
)

const (
	patience = 30 * time.Second

	// The pause between two polls doubles from firstPause to longestPause: most conditions hold at once, and
	// polling a slow one every millisecond would take the CPU time that it needs.
	firstPause   = time.Millisecond
	longestPause = 16 * time.Millisecond
)

// Nil polls until f returns nil. After 30 s the test fails with f's last error.
func Nil(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", patience, err)
		}
		time.Sleep(pause)
	}
}

// True polls until ok returns true. After the deadline it stops the test with a message that contains
// what, the awaited event.
func True(t testing.TB, what string, ok func() bool) {
	t.Helper()
	waiting := errors.New("still waiting for: " + what)
	Nil(t, func() error {
		if !ok() {
			return waiting
		}
		return nil
	})
}
