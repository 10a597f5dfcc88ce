package protocol

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// CommitState is the state of a commit in a reply of write.lua or settle.lua.
type CommitState int64

// The states.
const (
	NotCommitted CommitState = 0 // not committed, and never will be, because the deadline has passed
	Committed    CommitState = 1
	Pending      CommitState = 2 // may still be committed; from settle.lua only
	Unprovable   CommitState = 3 // the log does not show whether it was committed, and never will; from settle.lua only
)

// Outcome is the effect of a write that Redis answered.
type Outcome byte

// The outcomes. Only the first three are changes.
const (
	Created         Outcome = 'C'
	Replaced        Outcome = 'R'
	Deleted         Outcome = 'D'
	NotFound        Outcome = 'N' // Delete of a key without a value
	ConditionFailed Outcome = 'F'
)

// Changed reports whether a write with this outcome changed anything.
func (o Outcome) Changed() bool { return o == Created || o == Replaced || o == Deleted }

// WriteReply is a decoded reply of write.lua or settle.lua.
type WriteReply struct {
	State    CommitState
	Micros   int64  // Unix time of the node, in microseconds
	Before   Token  // version before the commit; if Committed
	Outcomes string // one letter for all writes, or one for each; if Committed
}

// DecodeWriteReply decodes a reply of write.lua or settle.lua to a call with this number of writes.
func DecodeWriteReply(reply []any, writes int) (w WriteReply, err error) {
	malformed := fmt.Errorf("malformed reply of %d parts", len(reply))
	if len(reply) < 2 {
		return w, malformed
	}
	state, ok := reply[0].(int64)
	micros, timed := reply[1].(int64)
	if !ok || !timed {
		return w, malformed
	}
	w.State, w.Micros = CommitState(state), micros
	if w.State != Committed {
		return w, nil
	}
	if len(reply) != 5 {
		return w, malformed
	}
	var r replyReader
	w.Before.Epoch = r.id(reply[2])
	if version, ok := reply[3].(int64); ok && version >= 0 {
		w.Before.Version = uint64(version)
	} else {
		r.fail(reply[3], "a version")
	}
	w.Outcomes = r.text(reply[4])
	if r.err == nil && len(w.Outcomes) != 1 && len(w.Outcomes) != writes {
		return w, malformed
	}
	return w, r.err
}

// OutcomeQuery are the parameters of settle.lua, which finds out what became of a call of write.lua.
type OutcomeQuery struct {
	WriteID []byte // write id of the call
	Expires int64  // deadline of the call by Redis's clock, Unix ms
	Writes  int    // number of writes in the call
	Before  Head   // head of the log before the call, without an epoch
}

// Arguments returns the keys and arguments of settle.lua.
func (q *OutcomeQuery) Arguments(k Keys) (names []string, args []any) {
	var before []byte
	if q.Before.WriteID != 0 {
		before = binary.BigEndian.AppendUint64(nil, q.Before.WriteID)
	}
	return []string{k.Epoch, k.Log}, []any{q.WriteID, q.Expires, q.Writes, q.Before.Version, before}
}

// LogEnd returns the head, without an epoch, of a log whose last entry is top[0]. It is the zero Head for an empty log, and
// when write.lua did not make the last entry.
func LogEnd(top []redis.XMessage) (h Head) {
	if len(top) == 0 {
		return h
	}
	packed, _ := top[0].Values["e"].(string)
	version, ours := strings.CutSuffix(top[0].ID, "-0")
	v, err := strconv.ParseUint(version, 10, 64)
	if !ours || err != nil || len(packed) < 8 {
		return h
	}
	return Head{Version: v, WriteID: uint64At(packed, 0)}
}
