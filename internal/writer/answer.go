package writer

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	maxReported = 1000    // maximum number of refused lines that are reported one by one
	maxReasons  = 100     // maximum number of reasons by which the other refused lines are counted
	maxUnsent   = 4 << 20 // maximum unsent part of the answer, in bytes; an import that exceeds it stops
)

// otherReasons counts the lines whose reasons exceed maxReasons.
const otherReasons = "other reasons"

// report is the answer to one line that was refused, was not written or has an unknown outcome.
type report struct {
	Line   int64  `json:"line"` // line number, from 1
	Status string `json:"status"`
	ID     string `json:"id,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// summary is the last line of the answer. Each of the first Lines lines was written, was empty, has a report or is
// counted in Unreported. After a stop, the client continues with line Lines+1.
type summary struct {
	Status     string       `json:"status"` // "done" or "stopped"
	Reason     string       `json:"reason,omitempty"`
	Lines      int64        `json:"lines"`
	Written    int64        `json:"written"`
	Created    int64        `json:"created"`
	Replaced   int64        `json:"replaced"`
	Refused    int64        `json:"refused"`
	Unknown    int64        `json:"unknown"`
	NotWritten int64        `json:"not_written"`
	Unreported []unreported `json:"unreported,omitempty"` // refused lines after the first maxReported
	Seconds    float64      `json:"seconds"`
}

// unreported counts the unreported lines that were refused for the same reason.
type unreported struct {
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Lines  int64  `json:"lines"`
}

// refusals decides which refused lines are reported, and counts the others.
type refusals struct {
	reported int
	others   map[unreported]int64 // by field and reason; Lines is 0
}

// report decides whether r is added to the answer. If not, it counts r.
func (c *refusals) report(r report) bool {
	if r.Status != lineRefused {
		return true // the client must send these lines again
	}
	if c.reported < maxReported {
		c.reported++
		return true
	}
	if c.others == nil {
		c.others = make(map[unreported]int64)
	}
	why := unreported{Field: r.Field, Reason: r.Reason}
	if _, known := c.others[why]; !known && len(c.others) >= maxReasons {
		why = unreported{Reason: otherReasons}
	}
	c.others[why]++
	return false
}

// unreported returns the counts of the lines without a report, the most frequent reason first.
func (c *refusals) unreported() []unreported {
	var all []unreported
	for why, lines := range c.others {
		why.Lines = lines
		all = append(all, why)
	}
	slices.SortFunc(all, func(a, b unreported) int {
		return cmp.Or(cmp.Compare(b.Lines, a.Lines), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

// answer is the answer to an import. add never blocks: many clients read nothing until they have sent the whole body,
// so waiting for them would be a deadlock.
type answer struct {
	w       io.Writer
	conn    *http.ResponseController
	more    chan struct{} // holds a token while queue may not be empty; closed by end
	sending sync.WaitGroup

	mu     sync.Mutex // guards the rest
	queue  []byte     // lines that send has not taken yet
	unsent int        // size of the lines that are not written to w, in bytes
}

// newAnswer returns an answer whose lines are sent to w in the background. The caller must call end.
func newAnswer(w io.Writer, conn *http.ResponseController) *answer {
	a := &answer{w: w, conn: conn, more: make(chan struct{}, 1)}
	_ = conn.SetWriteDeadline(time.Time{}) // the import continues as long as the client sends
	a.sending.Go(a.send)
	return a
}

// add appends a line.
func (a *answer) add(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // cannot happen: strings and numbers always marshal
	}
	a.mu.Lock()
	a.queue = append(append(a.queue, text...), '\n')
	a.unsent += len(text) + 1
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// size returns the number of unsent bytes.
func (a *answer) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsent
}

// send writes queued lines until end is called. After a failed write it discards them.
func (a *answer) send() {
	var failed error
	for range a.more {
		a.mu.Lock()
		lines := a.queue
		a.queue = nil
		a.mu.Unlock()
		if failed == nil {
			if _, failed = a.w.Write(lines); failed == nil {
				failed = a.conn.Flush()
			}
		}
		a.mu.Lock()
		a.unsent -= len(lines)
		a.mu.Unlock()
	}
}

// end waits until all lines are sent, for at most stallTimeout. add must not be called afterwards.
func (a *answer) end() {
	_ = a.conn.SetWriteDeadline(time.Now().Add(stallTimeout))
	close(a.more)
	a.sending.Wait()
}
