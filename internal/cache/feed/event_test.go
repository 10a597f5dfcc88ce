package feed

import (
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
	e := newEvent(at, protocol.Set, "a", "1\n2\n")
	if got, want := string(e.AppendSSE(nil)), "id: "+id+"\nevent: set\ndata: 1\ndata: 2\ndata: \n\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
