// Package eventually lets tests wait for a condition by polling with a deadline.
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

// Nil polls until f returns nil. After the deadline it stops the test with the last error of f.
func Nil(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
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

// True polls until ok returns true. After the deadline it stops the test with the message "no" and what,
// the name of the condition.
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
