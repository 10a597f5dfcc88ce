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
	maxReported = 1000    // refused lines with a report of their own
	maxReasons  = 100     // different ones by which the others are counted
	maxUnsent   = 4 << 20 // size of the answer that the client has not read, in bytes, above which an import stops
)

// otherReasons is what lines are counted under when there are too many different reasons.
const otherReasons = "other reasons"

// report is the line of the answer for a line that was refused, was not written or has an unknown outcome.
type report struct {
	Line   int64  `json:"line"` // number of the line, from 1
	Status string `json:"status"`
	ID     string `json:"id,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// summary is the last line of the answer. A line has a report, or is among Unreported, or is written, or is
// empty, up to Lines; after a stop it goes on with the line after that.
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

// unreported counts lines that were refused for one reason.
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

// report reports whether a line gets a report.
func (c *refusals) report(r report) bool {
	if r.Status != lineRefused {
		return true // the client has to know which lines to send again
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

// unreported returns the lines without a report, the most frequent reason first.
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

// answer is the answer to an import. add never waits for the client: many clients read nothing before they have
// sent everything, so waiting for them would be a deadlock.
type answer struct {
	w       io.Writer
	conn    *http.ResponseController
	more    chan struct{} // has a token while queue may have lines; end closes it
	sending sync.WaitGroup

	mu     sync.Mutex // guards what follows
	queue  []byte     // lines that send has not taken
	unsent int        // size of the lines that are not written, in bytes
}

// newAnswer returns an answer whose lines are sent to w in the background. The caller must call end.
func newAnswer(w io.Writer, conn *http.ResponseController) *answer {
	a := &answer{w: w, conn: conn, more: make(chan struct{}, 1)}
	_ = conn.SetWriteDeadline(time.Time{}) // the import goes on for as long as the client sends
	a.sending.Go(a.send)
	return a
}

// add appends a line.
func (a *answer) add(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // strings and numbers alone always marshal
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

// size returns how many bytes are not sent.
func (a *answer) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsent
}

func (a *answer) send() {
	var failed error
	for range a.more {
		a.mu.Lock()
		lines := a.queue
		a.queue = nil
		a.mu.Unlock()
		if failed == nil { // after an error the client is gone
			if _, failed = a.w.Write(lines); failed == nil {
				failed = a.conn.Flush()
			}
		}
		a.mu.Lock()
		a.unsent -= len(lines)
		a.mu.Unlock()
	}
}

// end returns when the client has taken all lines, or after stallTimeout. No add may follow.
func (a *answer) end() {
	_ = a.conn.SetWriteDeadline(time.Now().Add(stallTimeout))
	close(a.more)
	a.sending.Wait()
}
