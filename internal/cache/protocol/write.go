package protocol

import (
	"fmt"
	"strconv"
	"time"
)

// Condition is a condition on the key of a write. The zero value always holds. Redis evaluates it in the same atomic step as
// the write.
type Condition struct {
	Exists bool  // the key has a value
	Absent bool  // the key has no value
	Tags   []Tag // the key has a value with one of these tags
}

// None reports whether the condition always holds.
func (c Condition) None() bool { return c.encode() == "" }

// encode returns the condition as write.lua expects it.
func (c Condition) encode() string {
	switch {
	case c.Exists:
		return "*"
	case c.Absent:
		return "!"
	}
	b := make([]byte, 0, len(c.Tags)*len(Tag{}))
	for _, t := range c.Tags {
		b = append(b, t[:]...)
	}
	return string(b)
}

// Write is one write: a Set with Tag and Value, or a Delete.
type Write struct {
	Op    Op
	Key   string
	Value []byte // the caller may reuse it after the call
	Tag   Tag
	If    Condition
}

// Validate reports a write that cannot be framed.
func (w *Write) Validate() error {
	switch {
	case w.Op != Set && w.Op != Delete:
		return fmt.Errorf("operation %d: use Set or Delete", w.Op)
	case len(w.Key) == 0 || len(w.Key) > maxKey:
		return fmt.Errorf("key of %d bytes: use 1 to %d", len(w.Key), maxKey)
	case len(w.Value) > MaxValue:
		return fmt.Errorf("value of %d bytes: use at most %d", len(w.Value), MaxValue)
	}
	return nil
}

// WriteCall is one call of write.lua.
type WriteCall struct {
	Channel   string
	LogLength int64 // minimum number of writes that the log keeps
	Writes    []Write
	Published time.Time // estimate of Redis's time
	Expires   int64     // deadline by Redis's clock, Unix ms
	WriteID   []byte    // 8 random bytes
	NewEpoch  []byte    // 8 random bytes, for a history that this commit begins
}

// Arguments returns the keys and arguments of write.lua.
func (c *WriteCall) Arguments(k Keys) (names []string, args []any) {
	const fixed = 8
	names = make([]string, 3, 3+len(c.Writes))
	names[0], names[1], names[2] = k.Seq, k.Epoch, k.Log
	frames, logged := 0, 0 // bytes
	for i := range c.Writes {
		frames += FrameHeader + len(c.Writes[i].Key) + len(c.Writes[i].Value)
		logged += loggedHeader + len(c.Writes[i].Key)
	}
	log, b := make([]byte, 0, logged), make([]byte, 0, frames)
	args = make([]any, fixed, fixed+len(c.Writes))
	for i := range c.Writes {
		w := &c.Writes[i]
		names = append(names, k.Prefix+w.Key)
		log = AppendLogged(log, w)
		from := len(b)
		b = AppendFrame(b, w, c.Published)
		args = append(args, b[from:len(b):len(b)])
	}
	args[0] = c.Channel
	args[1] = strconv.FormatInt(c.Expires, 10)
	args[2] = c.LogLength
	args[3] = c.NewEpoch
	args[4] = tagOffset
	args[5] = c.Writes[0].If.encode()
	args[6] = c.WriteID
	args[7] = log
	return names, args
}
