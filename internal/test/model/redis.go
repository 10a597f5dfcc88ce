// Package model models the state of a shard in Redis and its whole past. The simulation of the protocol
// checks the answers of a replica against it.
package model

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Head is the end of the log.
type Head struct {
	Epoch, Version, WriteID uint64
}

// Entry is an entry of the log: a commit of the write script, or a foreign entry.
type Entry struct {
	Version, WriteID, Previous uint64   // Version is the last version of the commit, Previous the write id before it
	Keys                       []string // keys written by the commit; empty for a foreign entry
	Deletes                    bool     // the commit is a delete
	Size                       int      // in bytes
}

// Redis is the current state of a shard with its past. Not safe for concurrent use.
type Redis struct {
	rng    *rand.Rand
	epoch  uint64
	seq    uint64
	log    []Entry
	keep   int // number of log entries that Trim keeps
	values map[string]string
	run    int // number of the server's run, like run_id

	history int     // number of the current history
	past    []state // states of the current history, one per commit, indexed by position

	// floor maps a key to the earliest position that is consistent with all answers so far.
	floor map[string]int
}

// state is the shard after a commit.
type state struct {
	head   Head
	seq    uint64
	values map[string]version
	log    []Entry
	stored map[string]string
}

type version struct{ number uint64 }

// New returns an empty shard. Trim shortens its log to keep entries.
func New(rng *rand.Rand, keep int) *Redis {
	r := &Redis{rng: rng, keep: keep, values: map[string]string{}}
	r.begin()
	return r
}

// begin starts a new history with the current state and discards the past.
func (r *Redis) begin() {
	r.history++
	r.past, r.floor = nil, map[string]int{}
	r.remember()
}

func (r *Redis) remember() {
	s := state{head: r.Head(), seq: r.seq, values: map[string]version{}, log: r.log[:len(r.log):len(r.log)], stored: map[string]string{}}
	for key, stored := range r.values {
		n := binary.BigEndian.Uint64([]byte(stored[8:16]))
		if binary.BigEndian.Uint64([]byte(stored[:8])) != r.epoch {
			n = 0
		}
		s.values[key], s.stored[key] = version{n}, stored
	}
	r.past = append(r.past, s)
}

// Write is a set or a delete. A commit with a delete has no other write.
type Write struct {
	Delete bool
	Key    string
	Frame  []byte
}

// Commit does what write.lua does and returns the published message, or "" if nothing changed.
func (r *Redis) Commit(writes ...Write) (message string) {
	if _, there := r.values[writes[0].Key]; writes[0].Delete && !there {
		return ""
	}
	top := r.top()
	if r.epoch == 0 || r.seq != top.Version || len(r.log) > 0 && top.WriteID == 0 {
		r.epoch, r.log, r.seq = r.rng.Uint64()|1, nil, max(r.seq, top.Version)
		if r.seq >= limit {
			r.seq = 0
		}
		top = Entry{}
		r.begin()
	}
	entry := Entry{WriteID: r.rng.Uint64() | 1, Previous: top.WriteID, Size: 16}
	var frames string
	for _, w := range writes {
		r.seq++
		if w.Delete {
			entry.Deletes = true
			delete(r.values, w.Key)
		} else {
			r.values[w.Key] = stamp(r.epoch, r.seq, entry.WriteID) + string(w.Frame)
		}
		entry.Keys = append(entry.Keys, w.Key)
		entry.Size += 3 + len(w.Key)
		frames += string(w.Frame)
	}
	entry.Version = r.seq
	r.log = append(r.log, entry)
	r.remember()
	return stamp(r.epoch, r.seq, entry.WriteID) + string(binary.BigEndian.AppendUint64(nil, entry.Previous)) + frames
}

// top returns the last entry of the log, or the zero Entry.
func (r *Redis) top() Entry {
	if len(r.log) == 0 {
		return Entry{}
	}
	return r.log[len(r.log)-1]
}

func stamp(epoch, version, writeID uint64) string {
	b := binary.BigEndian.AppendUint64(nil, epoch)
	b = binary.BigEndian.AppendUint64(b, version)
	return string(binary.BigEndian.AppendUint64(b, writeID))
}

// Junk appends a foreign entry to the log: with the version of the last entry or a far higher one, and with
// or without a plausible write id.
func (r *Redis) Junk() {
	e := Entry{Version: r.top().Version + r.rng.Uint64N(3)*1000, Size: 1}
	if r.rng.IntN(2) == 0 {
		e.WriteID = r.rng.Uint64() | 1
	}
	r.log = append(r.log, e)
	r.remember()
}

// Trim removes the oldest entries of the log.
func (r *Redis) Trim() {
	if len(r.log) > r.keep {
		r.log = append([]Entry(nil), r.log[len(r.log)-r.keep:]...)
	}
}

// Failover returns to a recent state, like the promotion of a Redis replica that lacks the last writes.
func (r *Redis) Failover() {
	back := r.past[max(0, len(r.past)-1-r.rng.IntN(6))]
	r.seq, r.epoch = back.seq, back.head.Epoch
	r.log = append([]Entry(nil), back.log...)
	r.values = map[string]string{}
	for key, stored := range back.stored {
		r.values[key] = stored
	}
	r.run++
	r.begin()
}

// Flush deletes everything.
func (r *Redis) Flush() {
	r.values = map[string]string{}
	r.Forget()
}

// Forget deletes sequence, epoch and log but keeps the values.
func (r *Redis) Forget() {
	r.epoch, r.seq, r.log = 0, 0, nil
	r.begin()
}

// limit is the model's highest version: a history that would begin beyond it begins at 0.
const limit = 1 << 40

// SetBack sets the sequence number back, or to the limit. It has no effect before the next write.
func (r *Redis) SetBack() {
	r.seq -= min(r.seq, 1+r.rng.Uint64N(3))
	if r.epoch != 0 && r.rng.IntN(2) == 0 {
		r.seq = limit
	}
}

// Head returns the end of the log.
func (r *Redis) Head() Head {
	top := r.top()
	return Head{Epoch: r.epoch, Version: top.Version, WriteID: top.WriteID}
}

// History returns the number of the current history. The promises hold only within one history.
func (r *Redis) History() int { return r.history }

// Run returns the number of the server's run.
func (r *Redis) Run() int { return r.run }

// Get returns the stored value of key.
func (r *Redis) Get(key string) (stored string, present bool) {
	stored, present = r.values[key]
	return stored, present
}

// Values returns all stored values. The caller must not modify the map.
func (r *Redis) Values() map[string]string { return r.values }

// End returns the position of the current state.
func (r *Redis) End() int { return len(r.past) - 1 }

// State is the state of the shard at a position of the current history.
type State struct {
	Head   Head
	Values map[string]string
	log    []Entry
}

// At returns the state at a position: the state of a lagging Redis replica.
func (r *Redis) At(position int) State {
	s := r.past[position]
	return State{Head: s.head, Values: s.stored, log: s.log}
}

// Now returns the current state.
func (r *Redis) Now() State { return State{Head: r.Head(), Values: r.values, log: r.log} }

// After returns the log entries after version, and the write id of the last entry with that version.
func (s *State) After(version uint64) (entries []Entry, at uint64) {
	for i, e := range s.log {
		if e.Version == version {
			at = e.WriteID
		}
		if e.Version > version {
			return s.log[i:], at
		}
	}
	return nil, at
}

// Position returns the position of a head in the current history. known is false if the head is not part of
// it.
func (r *Redis) Position(epoch, version, writeID uint64) (position int, known bool) {
	for i := len(r.past) - 1; i >= 0; i-- {
		if r.past[i].head == (Head{epoch, version, writeID}) {
			return i, true
		}
	}
	return 0, false
}

// Floor returns the earliest position that is consistent with all answers for key so far. The answer to a
// read that starts now must not be older.
func (r *Redis) Floor(key string) int { return r.floor[key] }

// Check records an answer for key and returns "" if the key was in that state at any position from from on,
// else the reason why the answer is wrong.
func (r *Redis) Check(key string, number uint64, present bool, from int) (why string) {
	for i := from; i < len(r.past); i++ {
		v, there := r.past[i].values[key]
		if there == present && (!present || v.number == number) {
			r.floor[key] = max(r.floor[key], i)
			return ""
		}
	}
	return fmt.Sprintf("not its state at any position from %d to %d", from, len(r.past)-1)
}

// ForgetAnswers begins the answers of another reader: Check does not compare them with earlier ones.
func (r *Redis) ForgetAnswers() { clear(r.floor) }
