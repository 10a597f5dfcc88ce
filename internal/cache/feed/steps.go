package feed

import "heavy-read-api/internal/cache/protocol"

// stepValues are the values of log steps by key.
type stepValues map[string]*protocol.Value

func (v stepValues) add(st *protocol.LogStep) {
	for i := range st.Values {
		v[st.Values[i].Key] = &st.Values[i]
	}
}

// appendEntry appends the events of a log entry to dst: its deletes, and the sets whose values are still current. It
// returns false if the value of a set is not among values.
func (v stepValues) appendEntry(dst []Event, epoch uint64, e *protocol.LogEntry) (events []Event, ok bool) {
	ok = true
	e.Each(func(version uint64, op protocol.Op, key string) {
		at := protocol.Head{Epoch: epoch, Version: version, WriteID: e.WriteID}
		if op == protocol.Delete {
			dst = append(dst, newEvent(at, op, key, ""))
			return
		}
		value, read := v[key]
		if ok = ok && read; !read || !value.Present {
			return
		}
		written, rec, err := protocol.DecodeStored(value.Stored)
		if err == nil && written == at && rec.Key == key {
			dst = append(dst, newEvent(at, op, key, rec.Value))
		}
	})
	return dst, ok
}
