// Package eventually lets tests wait for what takes its time, by polling with a deadline.
package eventually

import (
	"errors"
	"testing"
	"time"
)

const (
	patience = 30 * time.Second
	pause    = time.Millisecond
)

// Nil polls until f returns nil. When that takes too long, the test fails with f's last error.
func Nil(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %v: %v", patience, err)
		}
		time.Sleep(pause)
	}
}

// True polls until ok returns true. When that takes too long, the test fails with what was awaited.
func True(t testing.TB, what string, ok func() bool) {
	t.Helper()
	missing := errors.New("no " + what)
	Nil(t, func() error {
		if !ok() {
			return missing
		}
		return nil
	})
}
