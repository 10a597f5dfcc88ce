package replica

import (
	"fmt"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/store"
)

// changeOf returns the change to the store that a value in Redis requires. A value that write.lua did not store
// counts as absent.
func changeOf(v *protocol.Value, epoch uint64) (store.Change, error) {
	c := store.Change{Key: v.Key}
	if !v.Present {
		return c, nil
	}
	written, rec, err := protocol.DecodeStored(v.Stored)
	if err != nil {
		return c, err
	}
	if rec.Key != v.Key {
		return c, fmt.Errorf("%w: it is of key %.40q", protocol.ErrFrame, rec.Key)
	}
	c.Present, c.Value, c.Version = true, rec.Value, written.VersionIn(epoch)
	return c, nil
}

// change is changeOf with the error logged.
func (a *applier) change(v *protocol.Value, epoch uint64) store.Change {
	c, err := changeOf(v, epoch)
	if err != nil {
		a.invalidValues.Log(a.log.Error, a.now(), "a value in Redis was not stored by the write script; reads of its key return 404 until it is written again", "key", v.Key, "err", err)
	}
	return c
}

// changes returns the changes that the values of a log step require.
func (a *applier) changes(values []protocol.Value, epoch uint64) []store.Change {
	changes := make([]store.Change, 0, len(values))
	for i := range values {
		changes = append(changes, a.change(&values[i], epoch))
	}
	return changes
}

// fills returns the changes for the missed keys of a log step, without the keys that its entries change.
func (a *applier) fills(st *protocol.LogStep, epoch uint64) []store.Change {
	var changes []store.Change
	for i := range st.Missed {
		if v := &st.Missed[i]; !v.Skipped && !has(st, v.Key) {
			changes = append(changes, a.change(v, epoch))
		}
	}
	return changes
}

// has reports whether an entry of a log step changes key.
func has(st *protocol.LogStep, key string) bool {
	for i := range st.Values {
		if st.Values[i].Key == key {
			return true
		}
	}
	return false
}
