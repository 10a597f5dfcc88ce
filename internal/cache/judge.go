package cache

// judge returns why the log does not continue w or has lost ahead, or "" if all is well. It looks at
// the entries themselves: whatever was looked at before could have been trimmed since.
func judge(st *step, w, ahead Head) (reason string) {
	switch {
	case st.head.Epoch != w.Epoch:
		return "epoch" // a new history, or none any more
	case st.at != 0 && st.at != w.WriteID,
		ahead.Version > w.Version && (st.ahead != ahead.WriteID || ahead.WriteID == 0): // 0 says as little as no entry
		return "history"
	}
	at := w
	for _, e := range st.entries {
		if e.writes == 0 {
			return "format" // of another build, or damaged
		}
		if e.version-uint64(e.writes) != at.Version {
			return "trimmed"
		}
		if e.previous != at.WriteID {
			return "history"
		}
		at.Version, at.WriteID = e.version, e.writeID
	}
	if len(st.entries) == 0 && st.part.writes == 0 && st.head != w || at.Version > st.head.Version ||
		at.Version == st.head.Version && at != st.head {
		return "history"
	}
	return ""
}
