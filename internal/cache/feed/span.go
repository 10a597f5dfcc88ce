package feed

import (
	"slices"
	"sort"

	"heavy-read-api/internal/cache/protocol"
)

// span is an unbroken part of a history: every event after start, up to and including head.
type span struct {
	start, head protocol.Head
	events      []Event
	ahead       protocol.Head   // newest write that events of the span were left out for, if it is after head; else zero
	also        []protocol.Head // further points of the history, also after head
}

// after returns the index of the first event after the position at, or false if the span does not show that at is a
// position in its history. A position without a write id fits any write of its version.
func (s *span) after(at protocol.Position) (index int, ok bool) {
	if at.Epoch != s.head.Epoch || at.Version < s.start.Version || at.Version > s.head.Version {
		return 0, false
	}
	if at.Behind() && !s.has(at.Ahead) {
		return 0, false
	}
	i := s.index(at.Version)
	var known protocol.Head
	switch {
	case i > 0 && s.events[i-1].At.Version == at.Version:
		known = s.events[i-1].At.Head
	case at.Version == s.head.Version:
		known = s.head
	case at.Version == s.start.Version:
		known = s.start
	default:
		return i, at.WriteID == 0 // the event of this version was left out
	}
	return i, at.WriteID == 0 || at.Head == known
}

// index returns the index of the first event after a version.
func (s *span) index(version uint64) int {
	return sort.Search(len(s.events), func(i int) bool { return s.events[i].At.Version > version })
}

// has reports whether the span shows that h is a point of its history.
func (s *span) has(h protocol.Head) bool {
	if h.WriteID == 0 {
		return false
	}
	if h == s.head || h == s.ahead || slices.Contains(s.also, h) {
		return true
	}
	i := s.index(h.Version)
	return i > 0 && s.events[i-1].At.Head == h
}

// take appends the events from index on to dst, up to about most bytes, for a follower at a position before them, and
// returns the position after them.
func (s *span) take(dst []Event, index int, from protocol.Position, most int64) ([]Event, protocol.Position) {
	at := from
	for ; index < len(s.events) && most > 0; index++ {
		e := s.events[index]
		most -= e.size()
		at = pass(at, e.At.Head, e.At.Ahead)
		e.owe(at.Ahead)
		dst = append(dst, e)
	}
	if index == len(s.events) {
		at = pass(at, s.head, s.ahead)
	}
	return dst, at
}

// pass returns the position at to, after from, if events between them were left out for ahead or for nothing.
func pass(from protocol.Position, to, ahead protocol.Head) protocol.Position {
	at := protocol.Position{Head: to, Ahead: from.Ahead}
	if ahead.Version > at.Ahead.Version {
		at.Ahead = ahead
	}
	if !at.Behind() {
		at.Ahead = protocol.Head{}
	}
	return at
}
