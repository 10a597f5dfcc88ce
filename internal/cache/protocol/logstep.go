package protocol

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Query is what a step asks for.
type Query struct {
	Watermark Head
	Ahead     Head     // the newest write that the store may hold
	Part      Part     // of the entry after the watermark, that an earlier step returned
	Missed    []string // keys that readers miss
	Limit     int64    // bytes, after which the step ends soon
}

// Part is the beginning of a log entry: the values of its first writes have been read.
type Part struct {
	WriteID uint64 // of the entry
	Writes  int
}

// LogStep is one instant of a shard.
type LogStep struct {
	Head    Head
	At      uint64 // write id of the log's entry at the watermark; 0 when the log has none
	Ahead   uint64 // the same at the newest write that the store may hold
	Entries []LogEntry
	Values  []Value // of the keys in entries and in part, each once
	Part    Part    // of the entry after entries
	Missed  []Value // of the missed keys, in their order
	Size    int64   // of entries and values, in bytes
	Micros  int64   // Unix time of the node, in microseconds; 0 when it does not tell
}

// LogEntry is a commit in the log.
type LogEntry struct {
	Version  uint64 // after it
	WriteID  uint64
	Previous uint64 // write id of the commit before
	Writes   int    // 0 when the entry was not made by the write script
	Size     int    // in bytes
}

// Value is the value of a key, as stored, or its absence.
type Value struct {
	Key     string
	Stored  string
	Present bool
	Skipped bool // not read: the step was full
}

// StepWrites bounds
const StepWrites = 8000

// FetchStep runs step.lua on a node or on one connection.
func FetchStep(ctx context.Context, on redis.Scripter, k Keys, q Query) (LogStep, error) {
	args := make([]any, 0, 7+len(q.Missed))
	args = append(args, strconv.FormatUint(q.Watermark.Version, 10), strconv.FormatUint(q.Ahead.Version, 10),
		StepWrites, q.Limit, k.Prefix, binary.BigEndian.AppendUint64(nil, q.Part.WriteID), q.Part.Writes)
	for _, key := range q.Missed {
		args = append(args, key)
	}
	reply, err := RunLoaded(ctx, on, func() *redis.Cmd {
		return logStepScript.EvalShaRO(ctx, on, []string{k.Epoch, k.Log}, args...)
	}).Slice()
	if err != nil {
		return LogStep{}, err
	}
	return decodeStep(reply, q.Missed)
}

// decodeStep reads the reply of step.lua.
func decodeStep(reply []any, missed []string) (st LogStep, err error) {
	var r replyReader
	if len(reply) != 11 {
		return st, fmt.Errorf("a reply of %d parts, want 11", len(reply))
	}
	st.Head = Head{Epoch: r.id(reply[0]), Version: r.number(reply[1]), WriteID: r.id(reply[2])}
	st.At, st.Ahead = r.id(reply[3]), r.id(reply[4])
	entries := r.list(reply[5], 2)
	st.Entries = make([]LogEntry, 0, len(entries)/2)
	for ; len(entries) > 0; entries = entries[2:] {
		st.Entries = append(st.Entries, r.entry(entries[0], entries[1]))
	}
	values := r.list(reply[6], 2)
	st.Values = make([]Value, 0, len(values)/2)
	for ; len(values) > 0; values = values[2:] {
		st.Values = append(st.Values, r.lookup(r.text(values[0]), values[1]))
	}
	found := r.list(reply[7], 1)
	if len(found) != len(missed) {
		return st, fmt.Errorf("%d values for %d keys", len(found), len(missed))
	}
	for i, key := range missed {
		st.Missed = append(st.Missed, r.lookup(key, found[i]))
	}
	st.Part.WriteID = r.id(reply[8])
	writes, _ := reply[9].(int64)
	st.Part.Writes = int(writes)
	st.Micros, _ = strconv.ParseInt(r.text(reply[10]), 10, 64)
	st.Measure()
	return st, r.err
}

// Measure sets the size of the step.
func (st *LogStep) Measure() {
	for i := range st.Entries {
		st.Size += int64(st.Entries[i].Size)
	}
	for _, lookups := range [][]Value{st.Values, st.Missed} {
		for i := range lookups {
			st.Size += int64(len(lookups[i].Stored))
		}
	}
}

// replyReader turns the parts of a script's reply into what they should be and keeps the first
// error.
type replyReader struct{ err error }

func (r *replyReader) fail(v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%.60q in the reply where %s should be", fmt.Sprint(v), want)
	}
}

func (r *replyReader) text(v any) string {
	s, ok := v.(string)
	if !ok {
		r.fail(v, "a string")
	}
	return s
}

func (r *replyReader) id(v any) uint64 {
	if s := r.text(v); len(s) == 8 {
		return uint64At(s, 0)
	}
	return 0
}

func (r *replyReader) number(v any) uint64 {
	n, err := strconv.ParseUint(r.text(v), 10, 64)
	if err != nil {
		r.fail(v, "a version")
	}
	return n
}

// list returns a list whose length is a multiple of n.
func (r *replyReader) list(v any, n int) []any {
	l, ok := v.([]any)
	if !ok || len(l)%n != 0 {
		r.fail(v, "a list")
		return nil
	}
	return l
}

// entry reads an entry of the log, which is packed as write.lua has it.
func (r *replyReader) entry(version, packed any) LogEntry {
	p := r.text(packed)
	e := LogEntry{Version: r.number(version), Size: len(p)}
	if len(p) > 16 {
		e.WriteID, e.Previous = uint64At(p, 0), uint64At(p, 8)
		e.Writes, _ = countLogged(p[16:])
	}
	return e
}

func (r *replyReader) lookup(key string, v any) Value {
	switch v := v.(type) {
	case nil:
		return Value{Key: key}
	case string:
		if err := CheckFormat(v); err != nil && r.err == nil {
			r.err = err
		}
		return Value{Key: key, Stored: v, Present: true}
	case int64:
		return Value{Key: key, Skipped: true}
	}
	r.fail(v, "a value")
	return Value{}
}
