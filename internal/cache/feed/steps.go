package feed

import "heavy-read-api/internal/cache/protocol"

// steps makes events of log steps.
type steps struct {
	values map[string]*protocol.Value // newest values by key
	head   protocol.Head              // end of the log at the time of the newest values
	events []Event
	ahead  protocol.Head // head, once an event has been left out; else zero
}

// add adds the values of a log step.
func (s *steps) add(st *protocol.LogStep) {
	if s.values == nil {
		s.values = make(map[string]*protocol.Value, len(st.Values))
	}
	for i := range st.Values {
		s.values[st.Values[i].Key] = &st.Values[i]
	}
	s.head = st.Head
}

// entries adds the events of log entries: their deletes, and the sets whose values are still current. The other sets have
// been overtaken by writes up to the head. It returns false if the value of a set is not among the values.
func (s *steps) entries(entries []protocol.LogEntry) (ok bool) {
	ok = true
	for i := range entries {
		e := &entries[i]
		e.Each(func(version uint64, op protocol.Op, key string) {
			at := protocol.Position{Head: protocol.Head{Epoch: s.head.Epoch, Version: version, WriteID: e.WriteID}, Ahead: s.ahead}
			if !at.Behind() {
				at.Ahead = protocol.Head{}
			}
			if op == protocol.Delete {
				s.events = append(s.events, newEvent(at, op, key, ""))
				return
			}
			value, read := s.values[key]
			ok = ok && read
			if read && value.Present {
				written, rec, err := protocol.DecodeStored(value.Stored)
				if err == nil && written == at.Head && rec.Key == key {
					s.events = append(s.events, newEvent(at, op, key, rec.Value))
					return
				}
			}
			s.ahead = s.head
		})
	}
	return ok
}
