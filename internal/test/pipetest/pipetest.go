// Package pipetest has a pipe that blocks its writer.
package pipetest

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Full returns a pipe that takes no more bytes, as a terminal after Ctrl-S. The end of the test closes both ends.
func Full(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	filling := []byte(strings.Repeat("-", 1023) + "\n")
	for err == nil {
		_, err = w.Write(filling)
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return r, w
}
