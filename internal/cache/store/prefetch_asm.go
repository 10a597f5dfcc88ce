//go:build amd64 || arm64

package store

import "unsafe"

// prefetch has the processor load the cache line at p. It does not wait, and does nothing if p is not valid.
//
//go:noescape
func prefetch(p unsafe.Pointer)
