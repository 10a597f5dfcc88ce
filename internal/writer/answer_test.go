package writer

import (
	"fmt"
	"strings"
	"testing"

	"heavy-read-api/internal/test/redistest"
)

// TestImportAnswerIsReadLast imports so many invalid lines that their reports fit into no buffer, and reads the answer
// after the whole body has been sent, as Python's http.client, wget and others do.
func TestImportAnswerIsReadLast(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	const bad, good = 100_000, 1000
	var body strings.Builder
	for range bad {
		body.WriteString(`{"id":"a","title":"t","author":1}` + "\n")
	}
	body.WriteString("bad\n")
	for n := range good {
		body.WriteString(line(fmt.Sprint("post-", n), "t"))
	}
	s := w.dial(t)
	s.begin(t, "POST /import", body.Len())
	s.write(t, body.String())
	r := decodeResult(t, s.answer(t))
	const last = bad + 1 + good
	if u := r.Unreported; len(u) != 2 || u[0].Field != "author" || u[0].Reason == "" || u[0].Lines != bad-maxReported || u[1].Field != "" || u[1].Reason == "" || u[1].Lines != 1 {
		t.Errorf("unreported lines: %+v", u)
	}
	r.Unreported = nil
	r.want(t, summary{Status: "done", Lines: last, Written: good, Created: good, Refused: bad + 1})
	if len(r.reports) != maxReported || r.reports[maxReported-1].Line != maxReported {
		t.Errorf("%d reports, want one for each of the first %d lines", len(r.reports), maxReported)
	}
}

// TestRefusalsAreBounded refuses lines for hundreds of different reasons.
func TestRefusalsAreBounded(t *testing.T) {
	var c refusals
	reported := 0
	count := func(status, reason string) {
		if c.report(report{Status: status, Reason: reason}) {
			reported++
		}
	}
	for n := range maxReported + 5*maxReasons {
		count(lineRefused, fmt.Sprint(n))
		count(lineRefused, "frequent")
		count(lineUnknown, "always reported")
		count(lineNotWritten, "always reported")
	}
	all := c.unreported()
	if len(all) != maxReasons+1 {
		t.Errorf("%d reasons, want %d", len(all), maxReasons+1)
	}
	lines := 0
	for i, u := range all {
		lines += int(u.Lines)
		if i > 0 && all[i-1].Lines < u.Lines {
			t.Errorf("%+v comes after %+v", u, all[i-1])
		}
	}
	if all[0].Reason != "frequent" && all[1].Reason != "frequent" || all[0].Reason != otherReasons && all[1].Reason != otherReasons {
		t.Errorf("the most frequent reasons are %+v", all[:2])
	}
	if total := maxReported + 5*maxReasons; reported != 2*total+maxReported || lines != 2*total-maxReported {
		t.Errorf("%d lines reported and %d counted, want %d and %d", reported, lines, 2*total+maxReported, 2*total-maxReported)
	}
}

// TestImportStopsWhenAnswerIsNotRead has a client that reads nothing while more and more lines have an unknown outcome:
// their reports are buffered, but only up to a limit.
func TestImportStopsWhenAnswerIsNotRead(t *testing.T) {
	tr := newTransfer(t)
	b := &batch{}
	for n := range int64(maxBatchLines) {
		b.add(n+1, nil, &report{Line: n + 1, Status: lineUnknown, Reason: strings.Repeat("x", 100)})
	}
	for n := 0; tr.ctx.Err() == nil; n++ {
		if n > maxUnsent/maxBatchLines/100 {
			t.Fatalf("%d bytes are buffered, and the import has not stopped", tr.answer.size())
		}
		if err := tr.publish(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := tr.answer.size(); n < maxUnsent || n > maxUnsent+maxBatchLines*200 {
		t.Errorf("the import stopped at %d bytes, want %d to %d", n, maxUnsent, maxUnsent+maxBatchLines*200)
	}
}
