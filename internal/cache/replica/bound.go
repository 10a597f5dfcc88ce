package replica

import "sync/atomic"

// byteBound limits the size of one reply of Redis, in bytes. It shrinks when requests fail, because a slow link cannot
// carry a large reply before the timeout, and grows again when they succeed. It starts at its maximum. Any goroutine
// may use it.
type byteBound struct {
	least, most int64
	current     atomic.Int64 // 0 until the first change: the bound is most
}

func (b *byteBound) get() int64 {
	if n := b.current.Load(); n != 0 {
		return n
	}
	return b.most
}

func (b *byteBound) shrink() { b.current.Store(max(b.least, b.get()/2)) }

func (b *byteBound) grow() { b.current.Store(min(b.most, 2*b.get())) }
