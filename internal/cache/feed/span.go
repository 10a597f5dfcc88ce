package feed

import (
	"sort"

	"heavy-read-api/internal/cache/protocol"
)

// span is an unbroken part of a history: every event after start, up to and including head.
type span struct {
	start, head protocol.Head
	events      []Event
}

// after returns the index of the first event after the position at, or false if the span does not show that at is a
// point of its history. A position without a write id fits any write of its version.
func (s *span) after(at protocol.Head) (index int, ok bool) {
	if at.Epoch != s.head.Epoch || at.Version < s.start.Version || at.Version > s.head.Version {
		return 0, false
	}
	i := sort.Search(len(s.events), func(i int) bool { return s.events[i].At.Version > at.Version })
	var known protocol.Head
	switch {
	case i > 0 && s.events[i-1].At.Version == at.Version:
		known = s.events[i-1].At
	case at.Version == s.head.Version:
		known = s.head
	case at.Version == s.start.Version:
		known = s.start
	default:
		return i, at.WriteID == 0 // the event of this version was left out
	}
	return i, at.WriteID == 0 || at == known
}

// take returns the events from index on, up to about most bytes, and the position after them.
func (s *span) take(index int, most int64) (events []Event, at protocol.Head) {
	end := index
	for end < len(s.events) && most > 0 {
		most -= s.events[end].size()
		end++
	}
	if end == len(s.events) {
		return s.events[index:end], s.head
	}
	return s.events[index:end], s.events[end-1].At
}
