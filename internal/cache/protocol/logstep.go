package protocol

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Query are the parameters of a log step.
type Query struct {
	Watermark Head
	Ahead     Head     // newest write whose value the store may hold
	Part      Part     // part of the entry after the watermark that an earlier log step returned
	Missed    []string // missed keys
	Limit     int64    // target size of the log step, in bytes
}

// Part is the beginning of a log entry whose values do not fit into one log step.
type Part struct {
	WriteID uint64 // write id of the entry
	Writes  int    // number of its writes whose values have been returned
}

// LogStep is one atomic read of a shard: the log after the watermark, the current values of its keys and of missed
// keys, and the head.
type LogStep struct {
	Head    Head
	At      uint64 // write id of the log entry at the watermark; 0 when the log has none
	Ahead   uint64 // write id of the log entry at Query.Ahead; 0 when the log has none
	Entries []LogEntry
	Values  []Value // values of the keys in Entries and Part, each once
	Part    Part    // part of the entry after Entries
	Missed  []Value // values of the missed keys, in the order of the query
	Size    int64   // size of entries and values, in bytes
	Micros  int64   // Unix time of the node, in microseconds; 0 when the node does not return it
}

// LogEntry is a commit in the log.
type LogEntry struct {
	Version  uint64 // last version of the commit
	WriteID  uint64
	Previous uint64 // write id of the previous commit
	Writes   int    // number of writes; 0 for an entry that write.lua did not make
	Size     int    // size in bytes
	Logged   string // the writes, as AppendLogged encodes them; "" for an entry that write.lua did not make
}

// Each calls f for every write of the entry, in order, with its version.
func (e *LogEntry) Each(f func(version uint64, op Op, key string)) {
	version := e.Version - uint64(e.Writes)
	for s := e.Logged; len(s) > 0; {
		op, key, rest := nextLogged(s)
		version++
		f(version, op, key)
		s = rest
	}
}

// Value is the stored value of a key, or its absence.
type Value struct {
	Key     string
	Stored  string
	Present bool
	Skipped bool // not read, because the log step was full
}

// StepWrites bounds the number of writes in a log step. The last commit may exceed it.
const StepWrites = 8000

// FetchStep runs step.lua, on a node or on one connection.
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

// decodeStep decodes the reply of step.lua.
func decodeStep(reply []any, missed []string) (st LogStep, err error) {
	var r replyReader
	if len(reply) != 11 {
		return st, fmt.Errorf("step.lua returned %d parts, want 11", len(reply))
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
		st.Values = append(st.Values, r.value(r.text(values[0]), values[1]))
	}
	found := r.list(reply[7], 1)
	if len(found) != len(missed) {
		return st, fmt.Errorf("step.lua returned %d values for %d missed keys", len(found), len(missed))
	}
	for i, key := range missed {
		st.Missed = append(st.Missed, r.value(key, found[i]))
	}
	st.Part.WriteID = r.id(reply[8])
	writes, _ := reply[9].(int64)
	st.Part.Writes = int(writes)
	st.Micros, _ = strconv.ParseInt(r.text(reply[10]), 10, 64)
	st.Measure()
	return st, r.err
}

// Measure sets Size.
func (st *LogStep) Measure() {
	for i := range st.Entries {
		st.Size += int64(st.Entries[i].Size)
	}
	for _, values := range [][]Value{st.Values, st.Missed} {
		for i := range values {
			st.Size += int64(len(values[i].Stored))
		}
	}
}
