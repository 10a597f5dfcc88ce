// Package logtest provides a buffer for logs that tests can read while the code under test writes it.
package logtest

import (
	"strings"
	"sync"
)

// Buffer is a buffer that is safe for concurrent use. The zero value is ready to use.
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

// String returns the content so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
