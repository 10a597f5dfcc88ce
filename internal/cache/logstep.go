package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// query is what a step asks for.
type query struct {
	watermark Head
	ahead     Head     // the newest write that the store may hold
	part      part     // of the entry after the watermark, that an earlier step returned
	missed    []string // keys that readers miss
	limit     int64    // bytes, after which the step ends soon
}

// part is the beginning of a log entry: the values of its first writes have been read.
type part struct {
	writeID uint64 // of the entry
	writes  int
}

// step is one instant of a shard.
type step struct {
	head    Head
	at      uint64 // write id of the log's entry at the watermark; 0 when the log has none
	ahead   uint64 // the same at the newest write that the store may hold
	entries []logEntry
	values  []lookup // of the keys in entries and in part, each once
	part    part     // of the entry after entries
	missed  []lookup // of the missed keys, in their order
	size    int64    // of entries and values, in bytes
	micros  int64    // Unix time of the node, in microseconds; 0 when it does not tell
}

// logEntry is a commit in the log.
type logEntry struct {
	version  uint64 // after it
	writeID  uint64
	previous uint64 // write id of the commit before
	writes   int    // 0 when the entry was not made by the write script
	size     int    // in bytes
}

// lookup is the value of a key, as stored, or its absence.
type lookup struct {
	key     string
	stored  string
	present bool
	skipped bool // not read: the step was full
}

// stepWrites bounds
const stepWrites = 8000

// runStep runs step.lua on a node or on one connection.
func runStep(ctx context.Context, on redis.Scripter, k keys, q query) (step, error) {
	args := make([]any, 0, 7+len(q.missed))
	args = append(args, strconv.FormatUint(q.watermark.Version, 10), strconv.FormatUint(q.ahead.Version, 10),
		stepWrites, q.limit, k.prefix, binary.BigEndian.AppendUint64(nil, q.part.writeID), q.part.writes)
	for _, key := range q.missed {
		args = append(args, key)
	}
	reply, err := runLoaded(ctx, on, func() *redis.Cmd {
		return stepScript.EvalShaRO(ctx, on, []string{k.epoch, k.log}, args...)
	}).Slice()
	if err != nil {
		return step{}, err
	}
	return decodeStep(reply, q.missed)
}

// decodeStep reads the reply of step.lua.
func decodeStep(reply []any, missed []string) (st step, err error) {
	var r replyReader
	if len(reply) != 11 {
		return st, fmt.Errorf("a reply of %d parts, want 11", len(reply))
	}
	st.head = Head{Epoch: r.id(reply[0]), Version: r.number(reply[1]), WriteID: r.id(reply[2])}
	st.at, st.ahead = r.id(reply[3]), r.id(reply[4])
	entries := r.list(reply[5], 2)
	st.entries = make([]logEntry, 0, len(entries)/2)
	for ; len(entries) > 0; entries = entries[2:] {
		st.entries = append(st.entries, r.entry(entries[0], entries[1]))
	}
	values := r.list(reply[6], 2)
	st.values = make([]lookup, 0, len(values)/2)
	for ; len(values) > 0; values = values[2:] {
		st.values = append(st.values, r.lookup(r.text(values[0]), values[1]))
	}
	found := r.list(reply[7], 1)
	if len(found) != len(missed) {
		return st, fmt.Errorf("%d values for %d keys", len(found), len(missed))
	}
	for i, key := range missed {
		st.missed = append(st.missed, r.lookup(key, found[i]))
	}
	st.part.writeID = r.id(reply[8])
	writes, _ := reply[9].(int64)
	st.part.writes = int(writes)
	st.micros, _ = strconv.ParseInt(r.text(reply[10]), 10, 64)
	st.measure()
	return st, r.err
}

// measure sets the size of the step.
func (st *step) measure() {
	for i := range st.entries {
		st.size += int64(st.entries[i].size)
	}
	for _, lookups := range [][]lookup{st.values, st.missed} {
		for i := range lookups {
			st.size += int64(len(lookups[i].stored))
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
func (r *replyReader) entry(version, packed any) logEntry {
	p := r.text(packed)
	e := logEntry{version: r.number(version), size: len(p)}
	if len(p) > 16 {
		e.writeID, e.previous = uint64At(p, 0), uint64At(p, 8)
		e.writes, _ = countLogged(p[16:])
	}
	return e
}

func (r *replyReader) lookup(key string, v any) lookup {
	switch v := v.(type) {
	case nil:
		return lookup{key: key}
	case string:
		if err := checkFormat(v); err != nil && r.err == nil {
			r.err = err
		}
		return lookup{key: key, stored: v, present: true}
	case int64:
		return lookup{key: key, skipped: true}
	}
	r.fail(v, "a value")
	return lookup{}
}
