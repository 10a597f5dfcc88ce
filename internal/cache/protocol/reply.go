package protocol

import (
	"fmt"
	"strconv"
)

// replyReader decodes the parts of a script's reply and keeps the first error.
type replyReader struct{ err error }

func (r *replyReader) fail(v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%.60q in the reply of a script where %s is expected", fmt.Sprint(v), want)
	}
}

func (r *replyReader) text(v any) string {
	s, ok := v.(string)
	if !ok {
		r.fail(v, "a string")
	}
	return s
}

// id returns an epoch or a write id; 0 for an empty string.
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

// entry returns a log entry, which write.lua has encoded.
func (r *replyReader) entry(version, packed any) LogEntry {
	p := r.text(packed)
	e := LogEntry{Version: r.number(version), Size: len(p)}
	if len(p) > entryHeader {
		e.WriteID, e.Previous = uint64At(p, 0), uint64At(p, 8)
		var ok bool
		if e.Writes, ok = countLogged(p[entryHeader:]); ok {
			e.Logged = p[entryHeader:]
		}
	}
	return e
}

// value returns the value of key: nil is an absent value, a number a skipped one.
func (r *replyReader) value(key string, v any) Value {
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
