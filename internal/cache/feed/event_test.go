package feed

import (
	"slices"
	"strings"
	"testing"

	"heavy-read-api/internal/cache/protocol"
)

func TestEncodings(t *testing.T) {
	at := protocol.Position{Head: protocol.Head{Epoch: 1, Version: 2, WriteID: 3}}
	const id = "0000000000000001-2.0000000000000003"
	for _, c := range []struct {
		event     Event
		sse, line string
	}{
		{newEvent(at, protocol.Set, "a", `{"id":"a"}`),
			"id: " + id + "\nevent: set\ndata: {\"id\":\"a\"}\n\n", `{"version":"` + id + `","event":"set","post":{"id":"a"}}` + "\n"},
		{newEvent(at, protocol.Delete, `a"<b`, "ignored"),
			"id: " + id + "\nevent: delete\ndata: {\"id\":\"a\\\"\\u003cb\"}\n\n", `{"version":"` + id + `","event":"delete","post":{"id":"a\"\u003cb"}}` + "\n"},
	} {
		if got := string(c.event.AppendSSE(nil)); got != c.sse {
			t.Errorf("%q, want %q", got, c.sse)
		}
		if got := string(c.event.AppendLine(nil)); got != c.line {
			t.Errorf("%q, want %q", got, c.line)
		}
	}
}

// A client that parses the stream as the specification says gets one event with all of the data, whatever line ends the
// value has, and no line of NDJSON is split.
func TestLineEnds(t *testing.T) {
	at := protocol.Position{Head: protocol.Head{Epoch: 1, Version: 2, WriteID: 3}}
	for _, value := range []string{"1\n2\n", "1\r2\r", "1\r\n2\r\n", "\r", "\n\r", "\r\r\n", "a\revent: delete\rdata: x\r\rid: 9", "a\n\nid: 9\n\n"} {
		e := newEvent(at, protocol.Set, "a", value)
		joined := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(value)
		want := []parsed{{at.String(), "set", joined}}
		if got := parseSSE(string(e.AppendSSE(nil))); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
		line := string(e.AppendLine(nil))
		if body := strings.TrimSuffix(line, "\n"); len(line)-len(body) != 1 || strings.ContainsAny(body, "\r\n") {
			t.Errorf("%q: line %q", value, line)
		}
	}
}

// parsed is an event as a client dispatches it.
type parsed struct{ id, event, data string }

// parseSSE parses a stream as the HTML standard says (9.2.6): CR, LF and CRLF end a line.
func parseSSE(stream string) (events []parsed) {
	var e parsed
	var data []string
	for line := range strings.SplitSeq(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(stream), "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && len(data) > 0:
			e.data = strings.Join(data, "\n")
			events = append(events, e)
			e, data = parsed{id: e.id}, nil
		case name == "id":
			e.id = value
		case name == "event":
			e.event = value
		case name == "data":
			data = append(data, value)
		}
	}
	return events
}
