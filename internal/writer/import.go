package writer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/loglimit"
	"heavy-read-api/internal/post"
)

const (
	maxImports     = 4                   // maximum number of concurrent imports
	maxBatchLines  = publisher.MaxWrites // maximum number of posts in a batch
	maxBatchBytes  = 1 << 20             // maximum size of a batch (ids and encoded posts), in bytes; a larger post is a batch of its own
	importClaim    = post.MaxBody        // share of an import in the budget, in bytes: the largest possible line
	stallTimeout   = 30 * time.Second    // timeout of a client that sends nothing, or at the end reads nothing
	maxFailures    = 5                   // number of consecutive failed batches after which an import stops
	recoverTimeout = 3 * time.Second     // maximum wait for Redis after a failed batch
)

// The next line compiles only if every post fits into one write, even if JSON escapes each of its bytes.
const _ = uint(protocol.MaxValue - post.MaxBody)

// Outcomes of a line.
const (
	lineCreated    = "created"
	lineReplaced   = "replaced"
	lineRefused    = "refused"
	lineUnknown    = "unknown"
	lineNotWritten = "not_written"
)

// importer writes posts that are sent as lines of JSON. It parses a batch while the previous one is written. Only one
// batch at a time is in flight to Redis, so that lines take effect in order.
type importer struct {
	stopping  context.Context // done when the process stops
	publisher *publisher.Publisher
	timeout   time.Duration // timeout of publisher for a write
	metrics   *metrics
	log       *slog.Logger
	// Log lines about imports are limited, because clients determine how many there are.
	ended, refusals, failures loglimit.Limit
	budget                    *budget
	places                    places
}

func newImporter(stopping context.Context, publisher *publisher.Publisher, timeout, patience time.Duration, b *budget, m *metrics, log *slog.Logger) *importer {
	return &importer{stopping: stopping, publisher: publisher, timeout: timeout, budget: b, metrics: m, log: log, places: newPlaces(patience)}
}

func (i *importer) serve(w http.ResponseWriter, r *http.Request) {
	if p := checkType(r.Header, "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"); p != nil {
		p.WriteTo(w)
		return
	}
	c := &claim{budget: i.budget}
	if !c.resize(importClaim) {
		i.refuse(w, &busy)
		return
	}
	defer c.resize(0)
	// Not the request's own context, which ends when the client half-closes the connection after the last line.
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	defer cancel(nil)
	defer context.AfterFunc(i.stopping, func() { cancel(errStopping) })()
	if err := i.ping(ctx); err != nil {
		i.refusals.Log(i.log.Warn, time.Now(), "import refused", "err", err)
		i.refuse(w, notWritten(err))
		return
	}
	conn := http.NewResponseController(w)
	t := &transfer{importer: i, ctx: ctx, cancel: cancel, began: time.Now(), batches: make(chan *batch), open: make(chan *batch, 1)}
	t.in = &patientReader{r: r.Body, ctx: ctx, conn: conn, now: time.Now}
	defer context.AfterFunc(ctx, t.in.interrupt)()
	if !i.places.enter(t, i.timeout) {
		i.refuse(w, &tooManyImports)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	t.answer = newAnswer(w, conn)
	parsing := t.run()
	i.places.leave(t)
	c.resize(int64(t.answer.size())) // from here on, only the unsent answer takes memory
	t.answer.end()
	parsing.Wait() // the body must not be read after the handler has returned
}

func (i *importer) refuse(w http.ResponseWriter, p *httpkit.Problem) {
	w.Header().Set("Retry-After", "1")
	p.WriteTo(w)
}

func (i *importer) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout/2)
	defer cancel()
	return i.publisher.Check(ctx)
}

// Reasons to stop an import before its end. They are returned in the summary.
var (
	errStopping = errors.New("the writer is stopping: send the remaining lines again")
	errStalled  = fmt.Errorf("the client sent nothing for %v: send the remaining lines again", stallTimeout)
	errBroken   = errors.New("the connection broke before the end of the body: send the remaining lines again")
	errNoRedis  = errors.New("writes to Redis keep failing: send the remaining lines again later")
	errIdle     = errors.New("another import needed the place, and this one mostly waited for its client: send the remaining lines again")
	errUnread   = errors.New("too much of the answer is unread: send the remaining lines again, and read the answer while sending")
)

var tooManyImports = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: fmt.Sprintf("nothing was written, because %d imports are running: send the request again", maxImports)}

// batch is a sequence of consecutive lines.
type batch struct {
	writes  []protocol.Write
	lines   []int64 // line number of each write
	refused []report
	bytes   int   // total size of the writes: keys and encoded values
	last    int64 // number of the last line, which may be empty
}

func (b *batch) full() bool {
	return len(b.writes) == maxBatchLines || len(b.refused) == maxBatchLines || b.bytes >= maxBatchBytes
}

// fits reports whether w can be added to the batch. An empty batch has room for a write of any size.
func (b *batch) fits(w *protocol.Write) bool {
	return len(b.writes) == 0 || b.bytes+size(w) <= maxBatchBytes
}

// add appends a line, which is a write, a refusal or, if both are nil, empty.
func (b *batch) add(number int64, w *protocol.Write, refused *report) {
	b.last = number
	switch {
	case refused != nil:
		b.refused = append(b.refused, *refused)
	case w != nil:
		b.writes = append(b.writes, *w)
		b.lines = append(b.lines, number)
		b.bytes += size(w)
	}
}

func size(w *protocol.Write) int { return len(w.Key) + len(w.Value) }

// decodeLine returns the write or the refusal of a line, or neither if the line is empty. The result shares no memory
// with line.
func decodeLine(number int64, line []byte, tooLong bool) (w *protocol.Write, refused *report) {
	if tooLong {
		return nil, &report{Line: number, Status: lineRefused, Reason: fmt.Sprintf("the line has more than %d bytes; send one post per line", post.MaxBody)}
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	p, err := post.Decode(line)
	if err != nil {
		problem := refusal(err)
		if fe := (*post.FieldError)(nil); errors.As(err, &fe) && fe.Field == "" {
			problem.Detail = "the line " + fe.Reason // "the body" would be all lines
		}
		return nil, &report{Line: number, Status: lineRefused, Field: problem.Field, Reason: problem.Detail}
	}
	encoded := p.Encode(time.Now())
	return &protocol.Write{Op: protocol.Set, Key: p.ID, Value: encoded.Body, Tag: encoded.Sum}, nil
}

// transfer is one import.
type transfer struct {
	*importer
	ctx     context.Context // canceled to stop the import early; the cause is the reason
	cancel  context.CancelCauseFunc
	in      *patientReader
	answer  *answer
	began   time.Time
	batches chan *batch // full batches, sent by parse to run; closed by parse
	open    chan *batch // holds the unfinished batch while parse waits for the client, so that run can take it
	err     error       // read error that ended parse; valid once batches is closed
	sum     summary
	refused refusals
}

// run imports the body until its end or until ctx is done, and adds all lines to the answer. The handler must wait for
// parsing before it returns: after an early stop, parse may still be reading the body.
func (t *transfer) run() (parsing *sync.WaitGroup) {
	parsing = new(sync.WaitGroup)
	parsing.Go(t.parse)

	failures := 0
	for b := t.next(); b != nil; b = t.next() {
		began := time.Now()
		err := t.publish(b)
		if err == nil {
			failures = 0
			continue
		}
		if failures++; failures == maxFailures {
			t.cancel(errNoRedis)
			break
		}
		t.recover(began, err)
	}

	t.sum.Status, t.sum.Unreported, t.sum.Seconds = "done", t.refused.unreported(), time.Since(t.began).Seconds()
	why := context.Cause(t.ctx)
	if why == nil {
		why = t.err
	}
	if why != nil {
		t.sum.Status, t.sum.Reason = "stopped", why.Error()
	}
	t.ended.Log(t.log.Info, time.Now(), "import ended", "status", t.sum.Status, "reason", t.sum.Reason, "lines", t.sum.Lines, "written", t.sum.Written,
		"refused", t.sum.Refused, "unknown", t.sum.Unknown, "not_written", t.sum.NotWritten, "seconds", t.sum.Seconds)
	t.answer.add(t.sum)
	return parsing
}

// next returns the next batch, or nil after the last one or when ctx is done.
func (t *transfer) next() *batch {
	if t.ctx.Err() != nil {
		return nil
	}
	select {
	case <-t.ctx.Done():
		return nil
	case b := <-t.open:
		return b
	case b := <-t.batches:
		return b
	}
}

// pass hands b to next, unless ctx is done.
func (t *transfer) pass(b *batch) {
	select {
	case t.batches <- b:
	case <-t.ctx.Done():
	}
}

// parse splits the lines into batches until the body ends or ctx is done.
func (t *transfer) parse() {
	defer close(t.batches)
	b := new(batch)
	// While parse waits for the client, run may take the unfinished batch, so that single lines are written at once.
	t.in.waiting = func() {
		if b.last > 0 {
			t.open <- b
		}
	}
	t.in.resumed = func() {
		if b.last == 0 {
			return
		}
		select {
		case <-t.open:
		default:
			b = new(batch) // run has taken the previous one
		}
	}
	lines := newLineReader(t.in, post.MaxBody)
	for number := int64(1); ; number++ {
		line, tooLong, err := lines.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.err = broken(err)
			}
			break
		}
		w, refused := decodeLine(number, line, tooLong)
		if w != nil && !b.fits(w) {
			t.pass(b)
			b = new(batch)
		}
		b.add(number, w, refused)
		if b.full() {
			t.pass(b)
			b = new(batch)
		}
	}
	if b.last > 0 {
		t.pass(b)
	}
}

func broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return errBroken
}

// publish writes a batch and reports the lines that were not written. It returns an error only if Redis failed: it
// accepted no writes, or its reply was lost.
func (t *transfer) publish(b *batch) error {
	var results []publisher.Result
	var err error
	if len(b.writes) > 0 {
		// Not canceled when the import stops, because the outcome of its last lines would be unknown.
		results, err = t.publisher.Write(context.WithoutCancel(t.ctx), b.writes...)
	}
	var created, replaced int
	for _, r := range results {
		if r.Outcome == protocol.Created {
			created++
		} else {
			replaced++
		}
	}
	reports, refused := b.refused, len(b.refused)
	if err != nil {
		t.failures.Log(t.log.Warn, time.Now(), "import: batch failed", "lines", len(b.writes), "last", b.last, "err", err)
		status, reason := verdict(err)
		reports = b.failed(status, reason)
		switch status {
		case lineUnknown:
			t.count(lineUnknown, &t.sum.Unknown, len(b.writes))
		case lineNotWritten:
			t.count(lineNotWritten, &t.sum.NotWritten, len(b.writes))
		default:
			refused += len(b.writes)
			err = nil
		}
	}
	t.count(lineCreated, &t.sum.Created, created)
	t.count(lineReplaced, &t.sum.Replaced, replaced)
	t.count(lineRefused, &t.sum.Refused, refused)
	t.sum.Written = t.sum.Created + t.sum.Replaced
	t.sum.Lines = b.last

	for _, r := range reports {
		if t.refused.report(r) {
			t.answer.add(r)
		}
	}
	if t.answer.size() > maxUnsent {
		t.cancel(errUnread)
	}
	return err
}

func (t *transfer) count(outcome string, sum *int64, n int) {
	*sum += int64(n)
	t.metrics.lines.WithLabelValues(outcome).Add(float64(n))
}

// verdict returns the outcome of the lines of a batch whose write failed with err, and the reason for the client.
func verdict(err error) (status, reason string) {
	switch {
	case errors.Is(err, publisher.ErrUnknown):
		return lineUnknown, "Redis did not confirm the write in time: the post may have been written; send the line again"
	case errors.Is(err, publisher.ErrNotWritten):
		return lineNotWritten, cmp.Or(advice(err), "Redis accepts no writes: send the line again")
	}
	return lineRefused, "the post cannot be written: " + err.Error() // the publisher sent nothing to Redis
}

// failed returns the reports of all lines of a batch whose write failed, in order.
func (b *batch) failed(status, reason string) []report {
	reports := b.refused
	for i, w := range b.writes {
		reports = append(reports, report{Line: b.lines[i], Status: status, ID: w.Key, Reason: reason})
	}
	slices.SortFunc(reports, func(a, b report) int { return cmp.Compare(a.Line, b.Line) })
	return reports
}

// recover waits after a failed batch until Redis accepts writes, but at most recoverTimeout.
func (t *transfer) recover(began time.Time, err error) {
	if errors.Is(err, publisher.ErrUnknown) {
		// Redis may execute the batch until its deadline, and must not execute it after the next one.
		t.sleep(time.Until(began.Add(t.timeout)))
	}
	for until := time.Now().Add(recoverTimeout); time.Now().Before(until) && t.ctx.Err() == nil; {
		if t.ping(t.ctx) == nil {
			return
		}
		t.sleep(100 * time.Millisecond)
	}
}

func (t *transfer) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
}
