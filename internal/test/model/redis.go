// Package model is Redis as the write script leaves it, in plain Go, with the whole past: the
// simulation of the protocol holds answers against it.
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

// Entry is one commit in the log, or something else that was put there. Version is the one after it.
type Entry struct {
	Version, WriteID, Previous uint64
	Keys                       []string // of its writes; empty when the write script did not make it
	Size                       int      // in bytes
}

// Redis holds the state of a shard and everything that led to it.
type Redis struct {
	rng    *rand.Rand
	epoch  uint64
	seq    uint64
	log    []Entry
	keep   int // entries of the log that a Trim leaves
	values map[string]string
	run    int

	history int     // number of the history
	past    []state // of this history, one for each commit; positions index it

	// floor is, for each key, the earliest position that is consistent with all answers so far.
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

// New returns an empty shard whose log may be trimmed to keep entries.
func New(rng *rand.Rand, keep int) *Redis {
	r := &Redis{rng: rng, keep: keep, values: map[string]string{}}
	r.begin()
	return r
}

// begin forgets the past: another history begins with the present state.
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

// Write is a set, or a delete, which comes alone.
type Write struct {
	Delete bool
	Key    string
	Frame  []byte
}

// Commit performs what write.lua does and returns the message, "" when it changed nothing.
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

// Junk puts an entry at the end of the log that the write script did not make: far ahead, or under
// the version of the last entry, with something in the place of a write id or without.
func (r *Redis) Junk() {
	e := Entry{Version: r.top().Version + r.rng.Uint64N(3)*1000, Size: 1}
	if r.rng.IntN(2) == 0 {
		e.WriteID = r.rng.Uint64() | 1
	}
	r.log = append(r.log, e)
	r.remember()
}

// Trim cuts the log.
func (r *Redis) Trim() {
	if len(r.log) > r.keep {
		r.log = append([]Entry(nil), r.log[len(r.log)-r.keep:]...)
	}
}

// Failover goes back to a state of a while ago, as a promoted replica that lacks the last writes.
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

// Forget deletes sequence, epoch and log, and keeps the values.
func (r *Redis) Forget() {
	r.epoch, r.seq, r.log = 0, 0, nil
	r.begin()
}

// limit stands for the limit of versions: a history that would begin beyond it begins at 0.
const limit = 1 << 40

// SetBack sets the sequence number back, or to the limit. Nothing shows before the next write.
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

// History returns the number of the history: nothing is promised from one to the next.
func (r *Redis) History() int { return r.history }

// Run identifies the run of the server.
func (r *Redis) Run() int { return r.run }

// Get returns what is stored under key.
func (r *Redis) Get(key string) (stored string, present bool) {
	stored, present = r.values[key]
	return stored, present
}

// Values returns everything that is stored.
func (r *Redis) Values() map[string]string { return r.values }

// End returns the position of the present state.
func (r *Redis) End() int { return len(r.past) - 1 }

// State is what the shard held at a position of the present history.
type State struct {
	Head   Head
	Values map[string]string
	log    []Entry
}

// At returns the state at a position, as a Redis replica that lags has it.
func (r *Redis) At(position int) State {
	s := r.past[position]
	return State{Head: s.head, Values: s.stored, log: s.log}
}

// Now returns the present state.
func (r *Redis) Now() State { return State{Head: r.Head(), Values: r.values, log: r.log} }

// After returns the log after version, and the write id of the last entry at version.
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

// Position returns the position of a head in the present history.
func (r *Redis) Position(epoch, version, writeID uint64) (position int, known bool) {
	for i := len(r.past) - 1; i >= 0; i-- {
		if r.past[i].head == (Head{epoch, version, writeID}) {
			return i, true
		}
	}
	return 0, false
}

// Floor returns the earliest position that is consistent with all answers about key so far. A
// question that is asked now must not get an older answer.
func (r *Redis) Floor(key string) int { return r.floor[key] }

// Check returns why an answer cannot be: the key was not in that state at any position after from.
// It remembers the answer.
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
