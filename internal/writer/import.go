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
	maxImports     = 4                   // at the same time
	maxBatchLines  = publisher.MaxWrites // of one script call
	maxBatchBytes  = 1 << 20             // of ids and encoded posts in a script call; a larger post goes alone
	importClaim    = post.MaxBody        // of the budget, in bytes: the largest line sets what an import may take
	stallTimeout   = 30 * time.Second    // for a client that neither sends nor, at the end, reads
	maxFailures    = 5                   // batches in a row, after which an import gives up
	recoverTimeout = 3 * time.Second     // that Redis is given after each of them
)

// Compiles only if every post fits into one write, even when JSON escapes every byte of it.
const _ = uint(protocol.MaxValue - post.MaxBody)

// Outcomes of a line.
const (
	lineCreated    = "created"
	lineReplaced   = "replaced"
	lineRefused    = "refused"
	lineUnknown    = "unknown"
	lineNotWritten = "not_written"
)

// importer writes posts that come as lines of JSON. One batch is parsed while the one before it is
// on its way to Redis, and no more than one is: so lines take effect in their order.
type importer struct {
	stopping  context.Context // done when the process is to end
	publisher *publisher.Publisher
	timeout   time.Duration // of a write of publisher
	metrics   *metrics
	log       *slog.Logger
	// Clients decide how many imports end, are refused or fail.
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
	// The request's context ends when the client closes its sending side, which it may do after the last line.
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
		i.refuse(w, &crowded)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	t.answer = newAnswer(w, conn)
	parsing := t.run()
	i.places.leave(t)
	c.resize(int64(t.answer.size())) // a client may take longer to read than its import had a place
	t.answer.end()
	parsing.Wait() // nobody may read the body once the handler has returned
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

// Reasons to stop an import before its end, as its summary gives them.
var (
	errStopping = errors.New("the writer is stopping: send the lines that are left again")
	errStalled  = fmt.Errorf("nothing was sent for %v: send the lines that are left again", stallTimeout)
	errBroken   = errors.New("the body broke off: send the lines that are left again")
	errNoRedis  = errors.New("no write gets through to Redis: send the lines that are left again later")
	errIdle     = errors.New("another import needs the place, and this one mostly waits for its client: send the lines that are left again")
	errUnread   = errors.New("too much of the answer is unread: send the lines that are left again, and read meanwhile")
)

var crowded = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: fmt.Sprintf("nothing was written, because %d imports are running: send the request again", maxImports)}

// batch is some lines that follow each other.
type batch struct {
	writes  []protocol.Write
	lines   []int64 // numbers of the lines of writes
	refused []report
	bytes   int   // size of writes: keys and encoded values
	last    int64 // number of the last line, empty ones included
}

func (b *batch) full() bool {
	return len(b.writes) == maxBatchLines || len(b.refused) == maxBatchLines || b.bytes >= maxBatchBytes
}

// fits reports whether w may join the batch. An empty batch takes a write of any size.
func (b *batch) fits(w *protocol.Write) bool {
	return len(b.writes) == 0 || b.bytes+size(w) <= maxBatchBytes
}

// add appends a line: its write, its refusal, or neither if it is empty.
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

// decodeLine returns the write that a line asks for, or its refusal; neither for an empty line. It does not
// hold on to line.
func decodeLine(number int64, line []byte, tooLong bool) (w *protocol.Write, refused *report) {
	if tooLong {
		return nil, &report{Line: number, Status: lineRefused, Reason: fmt.Sprintf("the line has more than %d bytes; send one post a line", post.MaxBody)}
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	p, err := post.Decode(line)
	if err != nil {
		problem := refusal(err)
		return nil, &report{Line: number, Status: lineRefused, Field: problem.Field, Reason: problem.Detail}
	}
	encoded := p.Encode(time.Now())
	return &protocol.Write{Op: protocol.Set, Key: p.ID, Value: encoded.Body, Tag: encoded.Sum}, nil
}

// transfer is one import.
type transfer struct {
	*importer
	ctx     context.Context // its cause is why the import stops early
	cancel  context.CancelCauseFunc
	in      *patientReader
	answer  *answer
	began   time.Time
	batches chan *batch // full ones, from parse to run; parse closes it
	open    chan *batch // holds the batch that is not full while parse waits for the client: run may take it
	err     error       // why parse ended before the end of the body; read it after batches is closed
	sum     summary
	refused refusals
}

// run reads the body to its end, or until ctx is done, and adds all lines of the answer. The caller must wait for
// parsing before it returns: after an early stop, parse still reads from the body until its read ends or times out.
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

// next returns the batch after the last one; nil after the last of all, and when ctx is done.
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

// pass hands a batch over to next.
func (t *transfer) pass(b *batch) {
	select {
	case t.batches <- b:
	case <-t.ctx.Done():
	}
}

// parse makes batches of the lines until the body or ctx ends.
func (t *transfer) parse() {
	defer close(t.batches)
	b := new(batch)
	// While parse waits for the client, run may take the batch that is not full. So single lines are written at
	// once.
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
			b = new(batch) // run has taken the other one
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

// publish writes a batch and reports what was not written. It returns an error only when Redis failed: one
// that does not accept writes, or whose reply is missing.
func (t *transfer) publish(b *batch) error {
	var results []publisher.Result
	var err error
	if len(b.writes) > 0 {
		// Not canceled when the client disconnects: the outcome of its last lines would be unknown.
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
		return lineUnknown, "Redis did not confirm in time: the post may have been written; send the line again"
	case errors.Is(err, publisher.ErrNotWritten):
		return lineNotWritten, cmp.Or(advice(err), "Redis cannot take writes: send the line again")
	}
	return lineRefused, "the post cannot be written: " + err.Error() // the publisher sent nothing to Redis
}

// failed returns the reports of all lines of a batch that was not written, in their order.
func (b *batch) failed(status, reason string) []report {
	reports := b.refused
	for i, w := range b.writes {
		reports = append(reports, report{Line: b.lines[i], Status: status, ID: w.Key, Reason: reason})
	}
	slices.SortFunc(reports, func(a, b report) int { return cmp.Compare(a.Line, b.Line) })
	return reports
}

// recover waits after a failed batch until Redis answers, but recoverTimeout at most.
func (t *transfer) recover(began time.Time, err error) {
	if errors.Is(err, publisher.ErrUnknown) {
		// Until its deadline the batch may still land, and it must not land after the next one.
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
