package feed

import (
	"encoding/json"
	"strings"

	"heavy-read-api/internal/cache/protocol"
)

// Event is one write. It is immutable, and its strings share one allocation of its own.
type Event struct {
	At      protocol.Position // Head has the version of the write and the write id of its commit
	ID      string            // At as text
	Key     string
	Value   string // "" for a delete
	Deleted bool
}

func newEvent(at protocol.Position, op protocol.Op, key, value string) Event {
	if op == protocol.Delete {
		value = ""
	}
	text := make([]byte, 0, 2*(16+1+20+1)+len(key)+len(value))
	text = at.Append(text)
	id := len(text)
	text = append(append(text, key...), value...)
	s := string(text)
	return Event{At: at, ID: s[:id], Key: s[id : id+len(key)], Value: s[id+len(key):], Deleted: op == protocol.Delete}
}

// eventOverhead is the memory of an event without its text, in bytes.
const eventOverhead = 136

// size returns the memory that the event takes, in bytes.
func (e *Event) size() int64 { return int64(eventOverhead + len(e.ID) + len(e.Key) + len(e.Value)) }

// owe sets what the events up to this one were left out for.
func (e *Event) owe(ahead protocol.Head) {
	if e.At.Ahead != ahead {
		e.At.Ahead = ahead
		e.ID = e.At.String()
	}
}

// AppendSSE appends the event as a Server-Sent Event. The data of a set is the value, byte for byte; the data of a delete
// is {"id":<key>}.
func (e *Event) AppendSSE(dst []byte) []byte {
	dst = append(append(dst, "id: "...), e.ID...)
	if e.Deleted {
		dst = append(dst, "\nevent: delete\ndata: "...)
		dst = appendKey(dst, e.Key)
	} else {
		dst = append(dst, "\nevent: set\ndata: "...)
		dst = appendData(dst, e.Value)
	}
	return append(dst, "\n\n"...)
}

// appendData appends a value as the data of an event. CR, LF and CRLF end a line of the stream, and every line needs the
// name of the field; a client joins the lines with LF. Posts have no line ends: only other programs store such values.
func appendData(dst []byte, value string) []byte {
	return appendSplit(dst, value, "\ndata: ")
}

// appendSplit appends text with separator in place of each line end.
func appendSplit(dst []byte, text, separator string) []byte {
	if strings.IndexByte(text, '\n') < 0 && strings.IndexByte(text, '\r') < 0 { // much faster than IndexAny
		return append(dst, text...)
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for {
		end := strings.IndexAny(text, "\r\n")
		if end < 0 {
			return append(dst, text...)
		}
		dst = append(append(dst, text[:end]...), separator...)
		text = text[end+1:]
	}
}

// AppendLine appends the event as a line of NDJSON. The value must be JSON. Line ends, which JSON allows between tokens
// only, become spaces.
func (e *Event) AppendLine(dst []byte) []byte {
	dst = append(append(dst, `{"version":"`...), e.ID...)
	if e.Deleted {
		dst = append(dst, `","event":"delete","post":`...)
		dst = appendKey(dst, e.Key)
	} else {
		dst = append(dst, `","event":"set","post":`...)
		dst = appendSplit(dst, e.Value, " ")
	}
	return append(dst, "}\n"...)
}

// appendKey appends {"id":<key>}.
func appendKey(dst []byte, key string) []byte {
	text, err := json.Marshal(key)
	if err != nil {
		panic(err) // cannot happen: strings always marshal
	}
	return append(append(append(dst, `{"id":`...), text...), '}')
}

// AppendCommit appends the events of a commit to dst.
func AppendCommit(dst []Event, c *protocol.Commit) []Event {
	for i := range c.Records {
		r := &c.Records[i]
		at := protocol.Position{Head: protocol.Head{Epoch: c.Head.Epoch, Version: c.Version(i), WriteID: c.Head.WriteID}}
		dst = append(dst, newEvent(at, r.Op, r.Key, r.Value))
	}
	return dst
}
