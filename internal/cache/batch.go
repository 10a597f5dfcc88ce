package cache

// batch collects changes and keeps the newest one of a key: two Sets of a new key in one batch
// leave ristretto with the older value.
type batch struct {
	changes []change
	index   map[string]int
}

func newBatch(size int) *batch {
	return &batch{changes: make([]change, 0, size), index: make(map[string]int, size)}
}

func (b *batch) add(c change) {
	if i, ok := b.index[c.key]; ok {
		b.changes[i] = c
		return
	}
	b.index[c.key] = len(b.changes)
	b.changes = append(b.changes, c)
}

func (b *batch) reset() {
	b.changes = b.changes[:0]
	clear(b.index)
}
