package feed

import (
	"sync"

	"heavy-read-api/internal/cache/protocol"
)

// maxEvents bounds the events of a window, so that small ones cost no more than their share of memory.
const maxEvents = 1 << 16

// maxAlso bounds the heads of log steps that a window keeps. A follower whose position names an older one needs a log
// step.
const maxAlso = 16

// window is the span that ends at the head of the replica. The oldest events leave it when it is full.
type window struct {
	most int64 // bound of bytes

	mu    sync.RWMutex // guards the rest
	span  span         // its events are events[first:]
	all   []Event      // the array behind span.events; the events before first have left
	first int
	bytes int64
}

// append adds the events between from and to, of which some may have been left out for ahead. The history has the point
// seen. Events that do not continue the window replace it.
func (w *window) append(from protocol.Head, events []Event, to, ahead, seen protocol.Head) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.endsAt(from) {
		w.clear(from)
	}
	at := protocol.Position{Head: from, Ahead: w.span.ahead}
	for i := range events {
		at = pass(at, events[i].At.Head, events[i].At.Ahead)
		events[i].owe(at.Ahead)
		w.bytes += events[i].size()
	}
	w.all = append(w.all, events...)
	w.span.head, w.span.ahead = to, pass(at, to, ahead).Ahead
	if seen.WriteID != 0 {
		if len(w.span.also) == maxAlso {
			w.span.also = w.span.also[1:]
		}
		w.span.also = append(w.span.also, seen)
	}
	for w.bytes > w.most || len(w.all)-w.first > maxEvents {
		old := &w.all[w.first]
		w.bytes -= old.size()
		w.span.start = old.At.Head
		*old = Event{}
		w.first++
	}
	if w.first > len(w.all)/2 {
		n := copy(w.all, w.all[w.first:])
		clear(w.all[n:])
		w.all, w.first = w.all[:n], 0
	}
	w.span.events = w.all[w.first:]
}

// restart empties the window and makes it begin at a head, unless it ends there. The replica holds values of writes up to
// ahead, which may be after the head.
func (w *window) restart(at, ahead protocol.Head) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ahead = pass(protocol.Position{}, at, ahead).Ahead
	if !w.endsAt(at) || w.span.ahead != ahead {
		w.clear(at)
		w.span.ahead = ahead
	}
}

// endsAt reports whether the window ends at a head. A head without a write id, which foreign entries in the log can cause,
// proves nothing: Redis may have been rolled back to the same version.
func (w *window) endsAt(at protocol.Head) bool {
	return w.span.head == at && (at.WriteID != 0 || at.Version == 0)
}

func (w *window) clear(at protocol.Head) {
	w.all, w.first, w.bytes = nil, 0, 0
	w.span = span{start: at, head: at}
}

// take appends the events after the position at to dst, up to about most bytes, and returns the position after them.
// It returns false if the window does not show that at is a point of its history; then to is its end.
func (w *window) take(dst []Event, at protocol.Position, most int64) (events []Event, to protocol.Position, ok bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	i, ok := w.span.after(at)
	if !ok {
		return dst, w.end(), false
	}
	events, to = w.span.take(dst, i, at, most)
	return events, to, true
}

func (w *window) has(h protocol.Head) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if h.WriteID == 0 {
		return w.endsAt(h)
	}
	_, ok := w.span.after(protocol.Position{Head: h})
	return ok
}

// end returns the position at the end. The caller holds mu.
func (w *window) end() protocol.Position {
	return protocol.Position{Head: w.span.head, Ahead: w.span.ahead}
}

func (w *window) endNow() protocol.Position {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.end()
}

// held returns the memory of the events, in bytes.
func (w *window) held() int64 {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.bytes
}
