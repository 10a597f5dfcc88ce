package writer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/logtest"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
)

// result is the answer to an import.
type result struct {
	reports []report
	summary
}

func decodeResult(t testing.TB, res response) (r result) {
	t.Helper()
	if res.status != http.StatusOK || res.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("status %d, %v: %.500s", res.status, res.header, res.body)
	}
	lines := bytes.Split(bytes.TrimSuffix(res.body, []byte("\n")), []byte("\n"))
	last := len(lines) - 1
	for _, line := range lines[:last] {
		var rep report
		if err := strict(line, &rep); err != nil {
			t.Fatalf("line %s: %v", line, err)
		}
		if n := len(r.reports); n > 0 && r.reports[n-1].Line >= rep.Line {
			t.Errorf("line %d is reported after line %d", rep.Line, r.reports[n-1].Line)
		}
		r.reports = append(r.reports, rep)
	}
	if err := strict(lines[last], &r.summary); err != nil {
		t.Fatalf("last line %s: %v", lines[last], err)
	}
	return r
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// want compares the summary with want, without Seconds and Reason.
func (r *result) want(t testing.TB, want summary) {
	t.Helper()
	got := r.summary
	if got.Seconds <= 0 {
		t.Errorf("seconds is %v, want a positive number", got.Seconds)
	}
	got.Seconds, got.Reason = 0, ""
	if !reflect.DeepEqual(got, want) {
		t.Errorf("summary %+v, want %+v", got, want)
	}
}

func line(id, title string) string { return fmt.Sprintf("{\"id\":%q,\"title\":%q}\n", id, title) }

// TestImport imports a file with valid, invalid and empty lines.
func TestImport(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		wantSuccess(t, db, w.do(t, "POST", "/create", line("post-3", "old")), 201, "post-3")

		bad := map[int]struct{ line, field string }{ // invalid lines by line number
			1:    {"not json", ""},
			2:    {`{"id":"x"}`, "title"},
			700:  {"{\"id\":\"x\",\"title\":\"\xff\"}", "title"},
			999:  {`{"id":"x","title":"t","title":"t"}`, "title"},
			1000: {`{"id":"x\u0000","title":"t"}`, "id"},
			1001: {strings.Repeat("x", post.MaxBody+1), ""},
			1003: {strings.Repeat(`{"id":"x","title":"t"}`, 2), ""},
			4000: {`[]`, ""},
			4999: {`{"id":"x","title":"` + strings.Repeat("t", post.MaxTitle+1) + `"}`, "title"},
		}
		var file strings.Builder
		last := 5000
		refused, empty, written := 0, 0, 0
		ids := map[string]bool{"post-3": true}
		for n := 1; n <= last; n++ {
			switch {
			case bad[n].line != "":
				refused++
				file.WriteString(bad[n].line + "\n")
			case n%500 == 250:
				empty++
				file.WriteString([]string{"\n", " \t\n", "\r\n"}[n/500%3])
			default:
				written++
				ids[fmt.Sprint("post-", n)] = true
				file.WriteString(line(fmt.Sprint("post-", n), fmt.Sprint("title ", n)))
			}
		}
		res := w.do(t, "POST", "/import", strings.TrimSuffix(file.String(), "\n"), "Content-Type", "application/x-ndjson")
		r := decodeResult(t, res)
		r.want(t, summary{
			Status: "done", Lines: int64(last), Written: int64(written), Created: int64(written - 1), Replaced: 1, Refused: int64(refused),
		})
		if len(r.reports) != refused || refused != len(bad) {
			t.Errorf("%d reports, want %d", len(r.reports), len(bad))
		}
		for _, rep := range r.reports {
			if want, ok := bad[int(rep.Line)]; !ok || rep.Status != "refused" || rep.Field != want.field || rep.Reason == "" {
				t.Errorf("%+v, want field %q", rep, want.field)
			}
		}
		for id := range ids {
			have := stored(t, db, id)
			if err := post.Verify([]byte(have)); err != nil || !strings.HasPrefix(have, `{"id":"`+id+`","title":"title `+strings.TrimPrefix(id, "post-")+`"`) {
				t.Fatalf("%s: %q, %v", id, have, err)
			}
		}
		if got, want := version(t, db), fmt.Sprint(1+written); got != want {
			t.Errorf("version %s, want %s", got, want)
		}
	})
}

// TestImportOrder imports the same few ids again and again: the last line of each id wins.
func TestImportOrder(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	const lines, ids = 10_000, 7
	var file strings.Builder
	for n := range lines {
		file.WriteString(line(fmt.Sprint("post-", n%ids), fmt.Sprint(n)))
	}
	r := decodeResult(t, w.do(t, "POST", "/import", file.String()))
	r.want(t, summary{Status: "done", Lines: lines, Written: lines, Created: ids, Replaced: lines - ids})
	for n := lines - ids; n < lines; n++ {
		id := fmt.Sprint("post-", n%ids)
		if have := stored(t, db, id); !strings.Contains(have, fmt.Sprintf(`"title":"%d"`, n)) {
			t.Errorf("%s is %s, want title %d", id, have, n)
		}
	}
}

// escaped returns the line of a post whose encoding is six times as large as its content and author.
func escaped(id string, content, author int) string {
	return fmt.Sprintf(`{"id":%q,"title":"t","content":"%s","author":"%s"}`+"\n", id,
		strings.Repeat(`\u0001`, content), strings.Repeat(`\u0001`, author))
}

// Lines that do not fit into a batch that is half full of small posts. large exceeds the publisher's limit for a batch
// of several writes, and largest has the largest encoding that a post can have.
var (
	medium  = func(id string) string { return escaped(id, 100<<10, 0) }
	large   = func(id string) string { return escaped(id, publisher.MaxBytes/6+1, 0) }
	largest = func(id string) string { return escaped(id, post.MaxContent, post.MaxAuthor) }
)

// TestImportEscapes imports small posts and posts whose encoding is large because of escapes.
func TestImportEscapes(t *testing.T) {
	t.Parallel()
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	proxy.Delay(faultnet.ToClient, 200*time.Millisecond) // batches fill while the previous one is written
	w := start(t, proxy.Addr())
	db := b.Client(t)
	var file strings.Builder
	ids := map[string]bool{}
	add := func(id, line string) {
		ids[id] = true
		file.WriteString(line)
	}
	for round := range 2 {
		for n := range 600 {
			id := fmt.Sprintf("small-%d-%d", round, n)
			add(id, line(id, strings.Repeat("x", 800)))
		}
		id := fmt.Sprint("large-", round)
		add(id, large(id))
	}
	add("medium", medium("medium"))
	add("largest", largest("largest"))
	r := decodeResult(t, w.do(t, "POST", "/import", file.String()))
	lines := int64(len(ids))
	r.want(t, summary{Status: "done", Lines: lines, Written: lines, Created: lines})
	if len(r.reports) > 0 {
		t.Errorf("%d reports, the first is %+v", len(r.reports), r.reports[0])
	}
	for id := range ids {
		if err := post.Verify([]byte(stored(t, db, id))); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	wantSuccess(t, db, w.do(t, "POST", "/create", largest("largest")), 200, "largest")
	wantSuccess(t, db, w.do(t, "PUT", "/post?id=largest", largest("largest")), 200, "largest")
}

// TestBatchesAreBounded splits bodies into batches. Together they contain all lines in order, and the publisher accepts
// each of them.
func TestBatchesAreBounded(t *testing.T) {
	small := strings.Repeat(line("a", strings.Repeat("x", 800)), 600)
	for name, body := range map[string]string{
		"small":             strings.Repeat(small, 4),
		"medium":            small + medium("b") + small + medium("b"),
		"medium alone":      strings.Repeat(medium("b"), 5),
		"large":             small + large("b") + small + large("b"),
		"large first":       large("b") + large("b") + small,
		"large in bad":      "bad\n\n" + large("b") + "bad\n" + large("b"),
		"largest":           small + largest("b") + small,
		"half of what fits": strings.Repeat(escaped("b", maxBatchBytes/12, 0), 4),
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTransfer(t)
			tr.in.r = strings.NewReader(body)
			var parsing sync.WaitGroup
			parsing.Go(tr.parse)
			defer parsing.Wait()
			last, lines := int64(0), int64(0)
			for b := range tr.batches {
				bytes := 0
				for i, w := range b.writes {
					bytes += len(w.Key) + len(w.Value)
					if b.lines[i] <= last {
						t.Errorf("line %d comes after line %d", b.lines[i], last)
					}
					last = b.lines[i]
				}
				if n := len(b.writes); n > publisher.MaxWrites || n > 1 && bytes > maxBatchBytes {
					t.Errorf("a batch of %d posts with %d bytes", n, bytes)
				}
				lines += int64(len(b.writes) + len(b.refused))
				last = b.last
			}
			if want := int64(strings.Count(body, "\n")); last != want || lines != want-int64(strings.Count(body, "\n\n")) {
				t.Errorf("the batches have %d lines up to line %d, want %d up to line %d", lines, last, want-int64(strings.Count(body, "\n\n")), want)
			}
		})
	}
}

// TestImportRefusesABatch publishes a batch that the publisher refuses. That does not count as a failure of Redis.
func TestImportRefusesABatch(t *testing.T) {
	tr := newTransfer(t)
	w := protocol.Write{Op: protocol.Set, Key: "a", Value: make([]byte, protocol.MaxValue+1)}
	if err := tr.publish(&batch{writes: []protocol.Write{w}, lines: []int64{7}, last: 7}); err != nil {
		t.Errorf("a refused batch counts as a failure: %v", err)
	}
	if want := (summary{Lines: 7, Refused: 1}); !reflect.DeepEqual(tr.sum, want) {
		t.Errorf("summary %+v, want %+v", tr.sum, want)
	}
	var rep report
	if err := strict(tr.answer.queue, &rep); err != nil || rep.Line != 7 || rep.ID != "a" || rep.Status != lineRefused || !strings.Contains(rep.Reason, "use at most") {
		t.Errorf("report %+v, %v", rep, err)
	}
}

// newTransfer returns an import without a server and without Redis.
func newTransfer(t *testing.T) *transfer {
	t.Helper()
	publisher, err := publisher.New(publisher.Config{Redis: nodetest.New(t, "127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	i := newImporter(t.Context(), publisher, time.Second, defaultPatience, &budget{}, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	conn := http.NewResponseController(&recorder{})
	return &transfer{
		importer: i, ctx: ctx, cancel: cancel, in: &patientReader{ctx: ctx, conn: conn, now: time.Now}, answer: &answer{conn: conn, more: make(chan struct{}, 1)},
		batches: make(chan *batch), open: make(chan *batch, 1),
	}
}

// recorder is an http.ResponseWriter that supports deadlines.
type recorder struct{ bytes.Buffer }

func (*recorder) Header() http.Header              { return http.Header{} }
func (*recorder) WriteHeader(int)                  {}
func (*recorder) Flush()                           {}
func (*recorder) SetReadDeadline(time.Time) error  { return nil }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }

func TestImportSmall(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	for _, tt := range []struct {
		body string
		want summary
	}{
		{"", summary{Status: "done"}},
		{"\n\n", summary{Status: "done", Lines: 2}},
		{line("a", "t") + "\n\n", summary{Status: "done", Lines: 3, Written: 1, Created: 1}},
		{"x", summary{Status: "done", Lines: 1, Refused: 1}},
		{strings.Repeat("x\n", 3000), summary{Status: "done", Lines: 3000, Refused: 3000}},
	} {
		r := decodeResult(t, w.do(t, "POST", "/import", tt.body))
		accounted := int64(len(r.reports))
		for _, u := range r.Unreported {
			accounted += u.Lines
		}
		if accounted != tt.want.Refused {
			t.Errorf("%d refused lines are accounted for, want %d", accounted, tt.want.Refused)
		}
		r.Unreported = nil
		r.want(t, tt.want)
	}
	for _, header := range [][]string{
		{"Content-Encoding", "gzip"},
		{"Content-Type", "application/x-www-form-urlencoded"},
		{"Content-Type", "text/csv"},
	} {
		wantProblem(t, w.do(t, "POST", "/import", line("b", "t"), header...), 415, header[0])
	}
	for _, media := range []string{"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json; charset=utf-8"} {
		r := decodeResult(t, w.do(t, "POST", "/import", line("a", "t"), "Content-Type", media))
		r.want(t, summary{Status: "done", Lines: 1, Written: 1, Replaced: 1})
	}
}

// stream is an import to which a test sends lines one by one.
type stream struct {
	*io.PipeWriter
	answer *bufio.Scanner
	cancel context.CancelFunc
	opened chan *http.Response // receives the answer once it begins, then is closed
}

func (w *instance) stream(t *testing.T) *stream {
	t.Helper()
	r, pw := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	s := &stream{PipeWriter: pw, cancel: cancel, opened: make(chan *http.Response, 1)}
	req, err := http.NewRequestWithContext(ctx, "POST", w.URL+"/import", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	go func() {
		defer close(s.opened)
		if res, err := servicetest.Client.Do(req); err == nil {
			s.opened <- res
		}
	}()
	t.Cleanup(func() {
		cancel() // also closes the body of the answer
		_ = pw.Close()
	})
	return s
}

func (s *stream) send(t *testing.T, lines ...string) {
	t.Helper()
	if _, err := io.WriteString(s, strings.Join(lines, "")); err != nil {
		t.Fatal(err)
	}
}

// next reads a line of the answer into v.
func (s *stream) next(t *testing.T, v any) {
	t.Helper()
	if text := s.line(t); strict(text, v) != nil {
		t.Fatalf("line %s", text)
	}
}

func (s *stream) line(t *testing.T) []byte {
	t.Helper()
	if s.answer == nil {
		res, ok := <-s.opened
		if !ok {
			t.Fatal("the import was not answered")
		}
		s.answer = bufio.NewScanner(res.Body)
	}
	if !s.answer.Scan() {
		t.Fatalf("the answer ended: %v", s.answer.Err())
	}
	return s.answer.Bytes()
}

// TestImportStreams sends lines and waits for the result of each before it sends the next.
func TestImportStreams(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	s := w.stream(t)
	for n := range 5 {
		id := fmt.Sprint("post-", n)
		s.send(t, line(id, "t"))
		eventually.Nil(t, func() error {
			if stored(t, db, id) == "" {
				return fmt.Errorf("%s is not there", id)
			}
			return nil
		})
		s.send(t, "bad\n")
		var rep report
		if s.next(t, &rep); rep.Line != int64(2*n+2) || rep.Status != "refused" {
			t.Errorf("%+v", rep)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var sum summary
	if s.next(t, &sum); sum.Status != "done" || sum.Lines != 10 || sum.Written != 5 {
		t.Errorf("%+v", sum)
	}
}

// TestImportClientDisconnects disconnects the client in the middle of an import: the lines that have arrived are
// written, and the place becomes free.
func TestImportClientDisconnects(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	for i := range 2 * maxImports {
		s := w.stream(t)
		id := fmt.Sprint("post-", i)
		s.send(t, line(id, "t"), `{"id":"half","ti`)
		eventually.Nil(t, func() error {
			if stored(t, db, id) == "" {
				return fmt.Errorf("%s is not there", id)
			}
			return nil
		})
		s.cancel()
		eventually.Nil(t, func() error {
			res := w.do(t, "POST", "/import", "")
			if res.status != 200 {
				return fmt.Errorf("%d %s", res.status, res.body)
			}
			return nil
		})
	}
	if have := stored(t, db, "half"); have != "" {
		t.Errorf("half a line became %s", have)
	}
}

// TestHalfClosed half-closes the connection after the last byte, as many programs do. The lines that have arrived are
// written, and the answer is complete.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	b := redistest.StartEmbedded(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	proxy.Delay(faultnet.ToClient, 50*time.Millisecond) // the end arrives long before the last line is written
	w := start(t, proxy.Addr())
	db := b.Client(t)
	const lines = 5000
	file := func(name string, n int) string {
		var body strings.Builder
		for i := range n {
			body.WriteString(line(fmt.Sprint(name, i), "t"))
		}
		return body.String()
	}
	for _, tt := range []struct {
		name   string
		lines  int
		send   func(s socket, body string)
		status string
	}{
		{"length", lines, func(s socket, body string) {
			s.begin(t, "POST /import", len(body))
			s.write(t, body)
		}, "done"},
		{"few", 3, func(s socket, body string) {
			s.begin(t, "POST /import", len(body))
			s.write(t, body)
		}, "done"},
		{"nothing", 0, func(s socket, _ string) { s.begin(t, "POST /import", 0) }, "done"},
		{"chunked", lines, func(s socket, body string) {
			s.begin(t, "POST /import", -1)
			s.write(t, chunk(body)+chunk(""))
		}, "done"},
		{"too short", lines, func(s socket, body string) {
			s.begin(t, "POST /import", len(body)+100)
			s.write(t, body+`{"id":"half","ti`)
		}, "stopped"},
		{"no last chunk", lines, func(s socket, body string) {
			s.begin(t, "POST /import", -1)
			s.write(t, chunk(body)+chunk(`{"id":"half","title":"t"}`))
		}, "stopped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := w.dial(t)
			tt.send(s, file(tt.name, tt.lines))
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			r := decodeResult(t, s.answer(t))
			n := int64(tt.lines)
			r.want(t, summary{Status: tt.status, Lines: n, Written: n, Created: n})
			if tt.status == "stopped" && r.Reason != errBroken.Error() {
				t.Errorf("reason %q, want %q", r.Reason, errBroken)
			}
		})
	}
	if have := stored(t, db, "half"); have != "" {
		t.Errorf("half a line became %s", have)
	}
	for _, request := range []string{"POST /create", "PUT /post?id=a"} {
		for _, length := range []int{len(line("a", "t")), -1} {
			s := w.dial(t)
			s.begin(t, request, length)
			text := line("a", "t")
			if length < 0 {
				text = chunk(text) + chunk("")
			}
			s.write(t, text)
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if res := s.answer(t); res.status/100 != 2 {
				t.Errorf("%s: %d %s", request, res.status, res.body)
			}
		}
	}
}

func TestTooManyImports(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	db := b.Client(t)
	var streams []*stream
	for i := range maxImports {
		s := w.stream(t)
		id := fmt.Sprint("post-", i)
		s.send(t, line(id, "t"))
		eventually.Nil(t, func() error {
			if stored(t, db, id) == "" {
				return fmt.Errorf("%s is not there", id)
			}
			return nil
		})
		streams = append(streams, s)
	}
	res := w.do(t, "POST", "/import", line("a", "t"))
	wantProblem(t, res, 503, "")
	if got := res.header.Get("Retry-After"); got == "" {
		t.Error("no Retry-After")
	}
	wantSuccess(t, db, w.do(t, "POST", "/create", line("a", "t")), 201, "a") // a single post needs no place
	if err := streams[0].Close(); err != nil {
		t.Fatal(err)
	}
	eventually.Nil(t, func() error {
		if res := w.do(t, "POST", "/import", line("a", "t")); res.status != 200 {
			return fmt.Errorf("%d %s", res.status, res.body)
		}
		return nil
	})
}

// TestStopDuringImport stops the writer during an import: the summary reports how far the import got.
func TestStopDuringImport(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr())
	s := w.stream(t)
	s.send(t, line("a", "t"), "bad\n")
	var rep report
	s.next(t, &rep)
	began := time.Now()
	w.Stop()
	var sum summary
	if s.next(t, &sum); sum.Status != "stopped" || sum.Lines != 2 || sum.Written != 1 || !strings.Contains(sum.Reason, "stopping") {
		t.Errorf("%+v", sum)
	}
	for err := range w.Done {
		if err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v, want at most 10s", took)
	}
}

// TestStoppedImportIsReadLast stops the writer while a client sends an import and reads the answer only at the
// end. The client still receives the summary, which says how far the import got.
func TestStoppedImportIsReadLast(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%v", chunked), func(t *testing.T) {
			b := redistest.StartEmbedded(t)
			w := start(t, b.Addr())
			db := b.Client(t)
			s := w.dial(t)
			text := line("a", strings.Repeat("t", 1000))
			const pieces = 200
			piece := strings.Repeat(text, 100)
			length := pieces * len(piece)
			end := ""
			if chunked {
				length, piece, end = -1, chunk(piece), chunk("")
			}
			s.begin(t, "POST /import", length)
			s.write(t, piece)
			eventually.True(t, "post", func() bool { return stored(t, db, "a") != "" })
			w.Stop()
			for range pieces - 1 {
				s.write(t, piece)
			}
			s.write(t, end)
			r := decodeResult(t, s.answer(t))
			if r.Status != "stopped" || r.Reason != errStopping.Error() || r.Written == 0 || r.Written != r.Lines {
				t.Errorf("%+v", r.summary)
			}
		})
	}
}

// TestImportWithoutRedis refuses an import before its body is read.
func TestImportWithoutRedis(t *testing.T) {
	proxy := faultnet.NewProxy(t, redistest.StartEmbedded(t).Addr())
	proxy.Refuse(true)
	w := start(t, proxy.Addr(), defaultTimeout)
	res := w.do(t, "POST", "/import", line("a", "t"))
	wantProblem(t, res, 503, "")
	if got := res.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After %q", got)
	}
}

// TestImportDuringRedisOutage cuts the connection to Redis during an import, in several ways and with or without a
// recovery. Every line has a report or is in Redis, and a line that is reported as not written is not in Redis.
func TestImportDuringRedisOutage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault   func(*faultnet.Proxy)
		returns bool
		status  string
		settled bool // no line is reported, because the writer finds all of them in Redis
	}{
		"refused for a moment": {func(p *faultnet.Proxy) { p.Refuse(true); p.Reset() }, true, "done", false},
		"refused for good":     {func(p *faultnet.Proxy) { p.Close() }, false, "stopped", false},
		"reply lost": {func(p *faultnet.Proxy) {
			p.OnceContains(faultnet.ToServer, postKey("post-"), faultnet.CutAtReply)
		}, true, "done", true},
		"request lost": {func(p *faultnet.Proxy) {
			p.OnceContains(faultnet.ToServer, postKey("post-"), faultnet.CutNow)
		}, true, "done", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := redistest.StartEmbedded(t)
			proxy := faultnet.NewProxy(t, b.Addr())
			w := start(t, proxy.Addr(), defaultTimeout)
			db := b.Client(t)
			s := w.stream(t)
			const before, after = 1500, 4500
			sent := make(chan struct{})
			go func() {
				defer s.Close()
				for n := range before {
					_, _ = io.WriteString(s, line(fmt.Sprint("post-", n), "t"))
				}
				<-sent
				for n := before; n < before+after; n++ {
					if _, err := io.WriteString(s, line(fmt.Sprint("post-", n), "t")); err != nil {
						return // the import was stopped
					}
				}
			}()
			eventually.Nil(t, func() error {
				if stored(t, db, fmt.Sprint("post-", before-1)) == "" {
					return fmt.Errorf("post-%d is not in Redis", before-1)
				}
				return nil
			})
			tt.fault(proxy)
			close(sent)

			var reports []report
			var sum summary
			for {
				text := s.line(t)
				var rep report
				if strict(text, &rep) != nil {
					if err := strict(text, &sum); err != nil {
						t.Fatalf("line %s: %v", text, err)
					}
					break
				}
				reports = append(reports, rep)
				if tt.returns {
					proxy.Refuse(false)
				}
			}
			if sum.Status != tt.status || sum.Written+sum.Unknown+sum.NotWritten != sum.Lines || int64(len(reports)) != sum.Unknown+sum.NotWritten {
				t.Errorf("%d reports and summary %+v, want status %q and a result for each line", len(reports), sum, tt.status)
			}
			if settled := len(reports) == 0; settled != tt.settled {
				t.Errorf("%d lines are reported, want none: %v; summary %+v", len(reports), tt.settled, sum)
			}
			if tt.returns && sum.Lines != before+after {
				t.Errorf("the import ended after %d of %d lines", sum.Lines, before+after)
			}
			status := map[int64]string{} // reported status by line number
			for _, rep := range reports {
				if rep.ID != fmt.Sprint("post-", rep.Line-1) {
					t.Fatalf("%+v", rep)
				}
				status[rep.Line] = rep.Status
			}
			for n := int64(1); n <= sum.Lines; n++ {
				have := stored(t, db, fmt.Sprint("post-", n-1)) != ""
				if status[n] == "" && !have || status[n] == lineNotWritten && have {
					t.Fatalf("line %d: in Redis: %v, reported: %q", n, have, status[n])
				}
			}
			for n := sum.Lines; n < before+after; n++ {
				if stored(t, db, fmt.Sprint("post-", n)) != "" {
					t.Fatalf("line %d is in Redis, but the summary covers only %d lines", n+1, sum.Lines)
				}
			}
		})
	}
}

// TestUnknownBatchIsNotOvertaken loses all replies from one batch on. Redis may still execute that batch until its
// deadline, and the following lines must not overtake it.
func TestUnknownBatchIsNotOvertaken(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	b := redistest.Start(t)
	proxy := faultnet.NewProxy(t, b.Addr())
	w := start(t, proxy.Addr(), defaultTimeout)
	db := b.Client(t)
	s := w.stream(t)
	s.send(t, line("warm-up", "t"))
	eventually.True(t, "line counted as written", func() bool {
		return strings.Contains(string(w.do(t, "GET", "/metrics", "").body), `writer_import_lines_total{outcome="created"} 1`)
	})
	began := time.Now()
	proxy.BlackHole(faultnet.ToClient, true)
	s.send(t, line("a", "first"))
	var rep report
	if s.next(t, &rep); rep.Status != lineUnknown || rep.ID != "a" {
		t.Fatalf("%+v", rep)
	}
	proxy.Heal()
	s.send(t, line("a", "second"))
	eventually.Nil(t, func() error {
		if have := stored(t, db, "a"); !strings.Contains(have, "second") {
			return fmt.Errorf("a is %s", have)
		}
		return nil
	})
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("the next batch was written after %v, want at least 3s, the deadline of the first one", took)
	}
	_ = s.Close()
	var sum summary
	if s.next(t, &sum); sum.Unknown != 1 || sum.Written != 2 {
		t.Errorf("%+v", sum)
	}
}

// TestConcurrentImports runs the maximum number of imports, all with the same ids.
func TestConcurrentImports(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		w := start(t, b.Addr())
		db := b.Client(t)
		var file strings.Builder
		const lines = 3000
		for n := range lines {
			file.WriteString(line(fmt.Sprint("post-", n%100), fmt.Sprint(n)))
		}
		var importing sync.WaitGroup
		for range maxImports {
			importing.Go(func() {
				res, err := servicetest.Client.Post(w.URL+"/import", "application/x-ndjson", strings.NewReader(file.String()))
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				var sum summary
				if err := json.NewDecoder(res.Body).Decode(&sum); err != nil || sum.Written != lines || sum.Status != "done" {
					t.Errorf("%+v, %v", sum, err)
				}
			})
		}
		importing.Wait()
		if got, want := version(t, db), fmt.Sprint(lines*maxImports); got != want {
			t.Errorf("version %s, want %s", got, want)
		}
	})
}

// Clients must not be able to fill the disk with log lines.
func TestImportLogIsLimited(t *testing.T) {
	var log logtest.Buffer
	w := start(t, redistest.StartEmbedded(t).Addr(), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 100 {
		w.do(t, "POST", "/import", "x\n")
	}
	if n := strings.Count(log.String(), "import ended"); n != 1 {
		t.Errorf("%d log lines for 100 imports, want 1", n)
	}
}

// The reason for refusing a line speaks of the line, not of the body.
func TestReasonOfARefusedLine(t *testing.T) {
	for line, want := range map[string]string{
		`{id}`:                  "the line is not valid JSON",
		`{"id":"a","title":""}`: `"title" `,
	} {
		if _, refused := decodeLine(1, []byte(line), false); refused == nil || !strings.HasPrefix(refused.Reason, want) {
			t.Errorf("%s: %+v, want a reason that begins with %q", line, refused, want)
		}
	}
}
