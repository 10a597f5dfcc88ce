// Package logtest has a log that a test reads while it is written.
package logtest

import (
	"strings"
	"sync"
)

// Buffer collects what is written to it. The zero value is ready for use by many goroutines.
type Buffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns what has been written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
