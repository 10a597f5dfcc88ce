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

// Entry is one commit in the log. Version is the one after it.
type Entry struct {
	Version, WriteID, Previous uint64
	Keys                       []string
}

// Redis holds the state of a shard and everything that led to it.
type Redis struct {
	rng    *rand.Rand
	epoch  uint64
	head   Head
	behind bool // the sequence was set back: the next write begins a new history
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
	s := state{head: r.Head(), values: map[string]version{}, log: r.log[:len(r.log):len(r.log)], stored: map[string]string{}}
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
	if r.epoch == 0 || r.behind {
		r.epoch, r.behind, r.log = r.rng.Uint64()|1, false, nil
		r.head = Head{Epoch: r.epoch, Version: r.head.Version}
		r.begin()
	}
	previous := r.head.WriteID
	r.head = Head{Epoch: r.epoch, Version: r.head.Version, WriteID: r.rng.Uint64() | 1}
	entry := Entry{WriteID: r.head.WriteID, Previous: previous}
	var frames string
	for _, w := range writes {
		r.head.Version++
		if w.Delete {
			delete(r.values, w.Key)
		} else {
			r.values[w.Key] = r.stamp() + string(w.Frame)
		}
		entry.Keys = append(entry.Keys, w.Key)
		frames += string(w.Frame)
	}
	entry.Version = r.head.Version
	r.log = append(r.log, entry)
	r.remember()
	return r.stamp() + string(binary.BigEndian.AppendUint64(nil, previous)) + frames
}

func (r *Redis) stamp() string {
	b := binary.BigEndian.AppendUint64(nil, r.head.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.head.Version)
	return string(binary.BigEndian.AppendUint64(b, r.head.WriteID))
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
	r.head, r.epoch = back.head, back.head.Epoch
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
	r.epoch, r.head, r.log, r.values, r.behind = 0, Head{}, nil, map[string]string{}, false
	r.begin()
}

// SetBack sets the sequence number back. Nothing shows before the next write.
func (r *Redis) SetBack() { r.behind = r.epoch != 0 }

// Head returns the end of the log.
func (r *Redis) Head() Head {
	if len(r.log) == 0 {
		return Head{Epoch: r.epoch}
	}
	return r.head
}

// History returns the number of the history: nothing is promised from one to the next.
func (r *Redis) History() int { return r.history }

// Run identifies the run of the server.
func (r *Redis) Run() int { return r.run }

// After returns the log after version, and the write id of the entry at version.
func (r *Redis) After(version uint64) (entries []Entry, at uint64) {
	for i, e := range r.log {
		if e.Version == version {
			at = e.WriteID
		}
		if e.Version > version {
			return r.log[i:], at
		}
	}
	return nil, at
}

// Get returns what is stored under key.
func (r *Redis) Get(key string) (stored string, present bool) {
	stored, present = r.values[key]
	return stored, present
}

// Values returns everything that is stored.
func (r *Redis) Values() map[string]string { return r.values }

// End returns the position of the present state.
func (r *Redis) End() int { return len(r.past) - 1 }

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
