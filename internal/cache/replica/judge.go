package replica

import "heavy-read-api/internal/cache/protocol"

// stepVerdict is the result of judging a log step.
type stepVerdict uint8

// The verdicts. All but the first require a snapshot.
const (
	stepContinues  stepVerdict = iota // the entries continue the watermark
	stepOtherEpoch                    // a new history has begun, or Redis has none any more
	stepRewritten                     // the log lacks or replaces a write that the store may hold
	stepUnreadable                    // an entry is damaged, or in the format of another build
	stepTrimmed                       // entries after the watermark have been trimmed
)

func (v stepVerdict) String() string {
	return [...]string{"continues", "epoch", "history", "format", "trimmed"}[v]
}

// snapshotReason returns the reason for the snapshot that the verdict requires.
func (v stepVerdict) snapshotReason() snapshotReason {
	return [...]snapshotReason{noSnapshot, snapshotEpoch, snapshotHistory, snapshotFormat, snapshotTrimmed}[v]
}

// judge reports whether the entries of a log step continue the watermark w, and whether the log still has ahead, the
// newest write whose value the store may hold. It checks the entries themselves, because a trim could outdate
// any check before the log step.
func judge(st *protocol.LogStep, w, ahead protocol.Head) stepVerdict {
	switch {
	case st.Head.Epoch != w.Epoch:
		return stepOtherEpoch
	case st.At != 0 && st.At != w.WriteID:
		return stepRewritten
	case ahead.Version > w.Version && (st.Ahead != ahead.WriteID || ahead.WriteID == 0): // 0: the log has no such entry
		return stepRewritten
	}
	at := w
	for _, e := range st.Entries {
		if e.Writes == 0 {
			return stepUnreadable
		}
		if e.Version-uint64(e.Writes) != at.Version {
			return stepTrimmed
		}
		if e.Previous != at.WriteID {
			return stepRewritten
		}
		at.Version, at.WriteID = e.Version, e.WriteID
	}
	switch {
	case len(st.Entries) == 0 && st.Part.Writes == 0 && st.Head != w,
		at.Version > st.Head.Version,
		at.Version == st.Head.Version && at != st.Head:
		return stepRewritten
	}
	return stepContinues
}

// reach returns the head up to which the entries of a log step lead from w, and whether it is the end of the log.
func reach(st *protocol.LogStep, w protocol.Head) (to protocol.Head, end bool) {
	if n := len(st.Entries); n > 0 {
		w.Version, w.WriteID = st.Entries[n-1].Version, st.Entries[n-1].WriteID
	}
	return w, w == st.Head
}
