package store

// Batch collects changes and keeps the newest one of a key, so that a key that is written often costs one change.
type Batch struct {
	Changes []Change // each key once
	index   map[string]int
}

// NewBatch returns an empty batch with room for size changes.
func NewBatch(size int) *Batch {
	return &Batch{Changes: make([]Change, 0, size), index: make(map[string]int, size)}
}

// Add adds c, which replaces an earlier change of its key.
func (b *Batch) Add(c Change) {
	if i, ok := b.index[c.Key]; ok {
		b.Changes[i] = c
		return
	}
	b.index[c.Key] = len(b.Changes)
	b.Changes = append(b.Changes, c)
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.Changes = b.Changes[:0]
	clear(b.index)
}
