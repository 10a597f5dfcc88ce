package feed

import (
	"context"

	"heavy-read-api/internal/cache/protocol"
)

// Check reports whether at is a point in the history of the replica. It fails with ErrGone if not, and with another error
// if Redis's log is needed and cannot be read. It blocks only for log steps, until ctx is done at most.
func (f *Feed) Check(ctx context.Context, at protocol.Head) error {
	position := protocol.Position{Head: at}
	if _, _, ok := f.window.take(nil, position, 0); ok {
		return nil
	}
	_, err := f.past.after(ctx, position)
	return err
}

// Written returns the keys of the sets after a position, and the position after them. It returns false if memory does not
// have all of them. It does not block.
func (f *Feed) Written(from protocol.Position) (keys []string, to protocol.Position, ok bool) {
	w := &f.window
	w.mu.RLock()
	defer w.mu.RUnlock()
	i, ok := w.span.after(from)
	if !ok {
		return nil, from, false
	}
	for _, e := range w.span.events[i:] {
		if !e.Deleted {
			keys = append(keys, e.Key)
		}
	}
	return keys, pass(from, w.span.head, w.span.ahead), true
}
