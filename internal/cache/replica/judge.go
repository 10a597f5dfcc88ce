package replica

import (
	"heavy-read-api/internal/cache/protocol"
)

// judge returns why the log does not continue w or has lost ahead, or "" if all is well. It looks at
// the entries themselves: whatever was looked at before could have been trimmed since.
func judge(st *protocol.LogStep, w, ahead protocol.Head) (reason string) {
	switch {
	case st.Head.Epoch != w.Epoch:
		return "epoch" // a new history, or none any more
	case st.At != 0 && st.At != w.WriteID,
		ahead.Version > w.Version && (st.Ahead != ahead.WriteID || ahead.WriteID == 0): // 0 says as little as no entry
		return "history"
	}
	at := w
	for _, e := range st.Entries {
		if e.Writes == 0 {
			return "format" // of another build, or damaged
		}
		if e.Version-uint64(e.Writes) != at.Version {
			return "trimmed"
		}
		if e.Previous != at.WriteID {
			return "history"
		}
		at.Version, at.WriteID = e.Version, e.WriteID
	}
	if len(st.Entries) == 0 && st.Part.Writes == 0 && st.Head != w || at.Version > st.Head.Version ||
		at.Version == st.Head.Version && at != st.Head {
		return "history"
	}
	return ""
}
