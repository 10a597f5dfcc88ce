package replica

import (
	"testing"

	"heavy-read-api/internal/cache/protocol"
)

// Every way in which a log step can fail to continue the watermark has its verdict.
func TestJudge(t *testing.T) {
	w := protocol.Head{Epoch: 1, Version: 10, WriteID: 110}
	ahead := protocol.Head{Epoch: 1, Version: 12, WriteID: 112}
	type entries = []protocol.LogEntry
	first := protocol.LogEntry{Version: 11, WriteID: 111, Previous: 110, Writes: 1}
	second := protocol.LogEntry{Version: 12, WriteID: 112, Previous: 111, Writes: 1}
	head := func(version, writeID uint64) protocol.Head {
		return protocol.Head{Epoch: 1, Version: version, WriteID: writeID}
	}
	for name, tt := range map[string]struct {
		step  protocol.LogStep
		ahead protocol.Head
		want  stepVerdict
	}{
		"nothing new":                  {protocol.LogStep{Head: w, At: 110}, w, stepContinues},
		"nothing new, trimmed":         {protocol.LogStep{Head: w}, w, stepContinues},
		"two entries":                  {protocol.LogStep{Head: head(12, 112), At: 110, Entries: entries{first, second}}, w, stepContinues},
		"one of two entries":           {protocol.LogStep{Head: head(12, 112), At: 110, Entries: entries{first}}, w, stepContinues},
		"part of an entry":             {protocol.LogStep{Head: head(12, 112), At: 110, Part: protocol.Part{WriteID: 111, Writes: 1}}, w, stepContinues},
		"ahead is in the log":          {protocol.LogStep{Head: head(12, 112), At: 110, Ahead: 112, Entries: entries{first, second}}, ahead, stepContinues},
		"another epoch":                {protocol.LogStep{Head: protocol.Head{Epoch: 2, Version: 10, WriteID: 110}, At: 110}, w, stepOtherEpoch},
		"no history":                   {protocol.LogStep{}, w, stepOtherEpoch},
		"other write at the end":       {protocol.LogStep{Head: head(10, 999), At: 999}, w, stepRewritten},
		"other write at the watermark": {protocol.LogStep{Head: head(11, 111), At: 999, Entries: entries{first}}, w, stepRewritten},
		"ahead was rolled back":        {protocol.LogStep{Head: head(11, 111), At: 110, Entries: entries{first}}, ahead, stepRewritten},
		"ahead was replaced":           {protocol.LogStep{Head: head(12, 999), At: 110, Ahead: 999, Entries: entries{first}}, ahead, stepRewritten},
		"ahead has no write id":        {protocol.LogStep{Head: head(12, 112), At: 110, Entries: entries{first, second}}, head(12, 0), stepRewritten},
		"broken chain": {protocol.LogStep{Head: head(12, 112), At: 110, Entries: entries{first,
			{Version: 12, WriteID: 112, Previous: 999, Writes: 1}}}, w, stepRewritten},
		"entries beyond the head":      {protocol.LogStep{Head: head(11, 111), At: 110, Entries: entries{first, second}}, w, stepRewritten},
		"other write than the head":    {protocol.LogStep{Head: head(12, 999), At: 110, Entries: entries{first, second}}, w, stepRewritten},
		"new head without its entries": {protocol.LogStep{Head: head(11, 111), At: 110}, w, stepRewritten},
		"first entry was trimmed":      {protocol.LogStep{Head: head(12, 112), Entries: entries{second}}, w, stepTrimmed},
		"more writes than versions": {protocol.LogStep{Head: head(11, 111), At: 110, Entries: entries{
			{Version: 11, WriteID: 111, Previous: 110, Writes: 2}}}, w, stepTrimmed},
		"unreadable entry": {protocol.LogStep{Head: head(11, 111), At: 110, Entries: entries{{Version: 11}}}, w, stepUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge(&tt.step, w, tt.ahead); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// Each reason and result has a label of its own, because dashboards and alerts select by it.
func TestLabels(t *testing.T) {
	seen := map[string]bool{}
	unique := func(kind, label string) {
		t.Helper()
		if label == "" || seen[kind+label] {
			t.Errorf("%s: label %q is empty or used twice", kind, label)
		}
		seen[kind+label] = true
	}
	for r := catchUpStart; r <= catchUpMiss; r++ {
		unique("catch-up ", r.String())
	}
	for r := snapshotStart; r <= snapshotTrimmed; r++ {
		unique("snapshot ", r.String())
	}
	for r := range messageResults {
		unique("message ", r.String())
	}
	for r := range fallbackResults {
		unique("fallback ", r.String())
	}
	for v := stepContinues; v <= stepTrimmed; v++ {
		if reason := v.snapshotReason(); (reason == noSnapshot) != (v == stepContinues) || reason != noSnapshot && reason.String() != v.String() {
			t.Errorf("verdict %v requires a snapshot for %q", v, reason)
		}
	}
}
