package reader

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/test/servicetest"
)

// sse is a Server-Sent Event.
type sse struct{ id, event, data string }

// stream is an open stream of /changes.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	scan *bufio.Reader
	res  *http.Response
}

func (r *instance) follow(t *testing.T, target string, header ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for n := 0; n < len(header); n += 2 {
		req.Header.Set(header[n], header[n+1])
	}
	res, err := servicetest.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &stream{t: t, body: res.Body, scan: bufio.NewReader(res.Body), res: res}
}

// next returns the next event with data, as an EventSource dispatches it, or false at a clean end.
func (s *stream) next() (e sse, ok bool) {
	s.t.Helper()
	var data []string
	for {
		line, err := s.scan.ReadString('\n')
		if err == io.EOF {
			return e, false
		}
		if err != nil {
			s.t.Fatalf("the stream broke: %v", err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.event = value
		case "data":
			data = append(data, value)
		case "":
			if data != nil {
				e.data = strings.Join(data, "\n")
				return e, true
			}
		}
	}
}

func (s *stream) want(event, data string, token protocol.Token) sse {
	s.t.Helper()
	e, ok := s.next()
	if !ok || e.event != event || e.data != data || !strings.HasPrefix(e.id, token.String()+".") {
		s.t.Fatalf("got %+v, %v, want %s %s with version %v", e, ok, event, data, token)
	}
	return e
}

// poll returns the lines of a long poll and the position in the last one.
func (r *instance) poll(t *testing.T, since string) (lines []string, next string) {
	t.Helper()
	res := r.do(t, "GET", "/changes?wait=0&since="+since)
	if res.status != http.StatusOK || res.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d %v %s", res.status, res.header, res.body)
	}
	lines = strings.Split(strings.TrimSuffix(string(res.body), "\n"), "\n")
	var last struct{ Next string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Next == "" {
		t.Fatalf("%q: %v", lines, err)
	}
	return lines[:len(lines)-1], last.Next
}

func TestChangesStream(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b redistest.Backend) {
		p := newPublisher(t, b.Addr())
		first := publish(t, p, post.Post{ID: "a", Title: "1"})
		r := startReady(t, b.Addr(), func(c *Config) { c.AllowOrigin = "*" })
		s := r.follow(t, "/changes?since="+first.token.String())
		for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
			"X-Served-By": "reader-under-test", "Access-Control-Allow-Origin": "*"} {
			if got := s.res.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		second := publish(t, p, post.Post{ID: "a", Title: "2"})
		s.want("set", string(second.body), second.token)
		gone := remove(t, p, "a")
		deleted := s.want("delete", `{"id":"a"}`, gone)
		third := publish(t, p, post.Post{ID: `q"<é`, Title: "3"})
		s.want("set", string(third.body), third.token)

		// A client resumes after the last event that it got, from the event's id or from a plain version.
		r.follow(t, "/changes", "Last-Event-ID", deleted.id).want("set", string(third.body), third.token)
		again := r.follow(t, "/changes?since="+first.token.String(), "Last-Event-ID", gone.String())
		again.want("set", string(third.body), third.token)
		// The same events in a poll.
		lines, next := r.poll(t, second.token.String())
		if len(lines) != 2 || lines[0] != `{"version":"`+deleted.id+`","event":"delete","post":{"id":"a"}}` ||
			!strings.HasSuffix(lines[1], `,"event":"set","post":`+string(third.body)+"}") {
			t.Errorf("%q", lines)
		}
		if lines, same := r.poll(t, next); len(lines) != 0 || same != next {
			t.Errorf("%q, next %s, want none and %s", lines, same, next)
		}
		// Without a position, a client follows from the present.
		now := r.follow(t, "/changes")
		fourth := publish(t, p, post.Post{ID: "a", Title: "4"})
		now.want("set", string(fourth.body), fourth.token)
		// A read with the id of an event as its version is at least that new.
		e := s.want("set", string(fourth.body), fourth.token)
		if res := r.do(t, "GET", "/post?id=a", "X-Min-Version", e.id); !bytes.Equal(res.body, fourth.body) {
			t.Errorf("%d %s", res.status, res.body)
		}
	})
}

// A poll waits for an event.
func TestChangesPollWaits(t *testing.T) {
	b := redistest.StartEmbedded(t)
	p := newPublisher(t, b.Addr())
	w := publish(t, p, post.Post{ID: "a", Title: "1"})
	r := startReady(t, b.Addr())
	answered := make(chan response, 1)
	go func() { answered <- r.do(t, "GET", "/changes?since="+w.token.String()) }()
	eventually.True(t, "the poll waits", func() bool { return strings.Contains(string(r.do(t, "GET", "/metrics").body), "changes_followers 1\n") })
	w = publish(t, p, post.Post{ID: "a", Title: "2"})
	if res := <-answered; !strings.Contains(string(res.body), string(w.body)) || !strings.Contains(string(res.body), `{"next":"`+w.token.String()) {
		t.Errorf("%d %s", res.status, res.body)
	}
}

// Positions before the window come from the log, each key with its newest value, in order and without a repetition. A
// trimmed log, another history and a version that Redis does not have are gone.
func TestChangesFromTheLog(t *testing.T) {
	redistest.Require(t)
	b := redistest.Start(t)
	p := newPublisher(t, b.Addr())
	first := publish(t, p, post.Post{ID: "start", Title: "0"})
	want := map[string]string{}
	for i := range 40 { // commits of 50 posts
		var commit []protocol.Write
		for j := range 50 {
			id := fmt.Sprint("k", (50*i+j)%700)
			e := (&post.Post{ID: id, Title: strings.Repeat("x", 300) + fmt.Sprint(i)}).Encode(time.Now())
			commit = append(commit, protocol.Write{Op: protocol.Set, Key: id, Value: e.Body, Tag: e.Sum})
			want[id] = string(e.Body)
		}
		if _, err := p.Write(t.Context(), commit...); err != nil {
			t.Fatal(err)
		}
	}
	last := remove(t, p, "k3")
	delete(want, "k3")
	r := startReady(t, b.Addr())                                                                         // its window begins here
	s := r.follow(t, "/changes?since="+(protocol.Token{Epoch: first.token.Epoch, Version: 20}).String()) // inside a commit
	got, at := map[string]string{}, first.token
	for at != last {
		e, ok := s.next()
		if !ok {
			t.Fatal("the stream ended")
		}
		token, err := protocol.ParseToken(e.id)
		if err != nil || token.Epoch != at.Epoch || token.Version <= at.Version {
			t.Fatalf("%+v after %v: %v", e, at, err)
		}
		at = token
		var id struct{ ID string }
		if err := json.Unmarshal([]byte(e.data), &id); err != nil {
			t.Fatal(err)
		}
		if e.event == "delete" {
			delete(got, id.ID)
		} else {
			got[id.ID] = e.data
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d posts, want %d", len(got), len(want))
	}
	for id, data := range want {
		if got[id] != data {
			t.Errorf("%s is %s, want %s", id, got[id], data)
		}
	}
	for _, since := range []string{
		protocol.Token{Epoch: first.token.Epoch ^ 1, Version: 5}.String(),
		protocol.Token{Epoch: first.token.Epoch, Version: last.Version + 1}.String(),
		protocol.Position{Head: protocol.Head{Epoch: first.token.Epoch, Version: 5, WriteID: 1}}.String(),
	} {
		wantProblem(t, r.do(t, "GET", "/changes?since="+since), http.StatusGone, "since")
	}
	if err := b.Client(t).XTrimMaxLen(t.Context(), protocol.NewKeys(protocol.DefaultNamespace).Log, 10).Err(); err != nil {
		t.Fatal(err)
	}
	res := r.do(t, "GET", "/changes?since="+protocol.Token{Epoch: first.token.Epoch, Version: 7}.String(), "Accept", "text/event-stream")
	wantProblem(t, res, http.StatusGone, "since")
}

func TestChangesRefusals(t *testing.T) {
	b := redistest.StartEmbedded(t)
	r := startReady(t, b.Addr(), func(c *Config) { c.MaxFollowers = 2 })
	for target, field := range map[string]string{"since=x": "since", "since=": "since", "since=1&since=2": "since", "wait=31": "wait", "wait=-1": "wait", "wait=": "wait"} {
		wantProblem(t, r.do(t, "GET", "/changes?"+target), http.StatusBadRequest, field)
	}
	wantProblem(t, r.do(t, "GET", "/changes?since=%zz"), http.StatusBadRequest, "")
	wantProblem(t, r.do(t, "GET", "/changes", "Accept", "text/event-stream", "Last-Event-ID", "7"), http.StatusBadRequest, "Last-Event-ID")
	r.follow(t, "/changes")
	r.follow(t, "/changes")
	res := r.do(t, "GET", "/changes")
	wantProblem(t, res, http.StatusServiceUnavailable, "")
	if res.header.Get("Retry-After") != "1" {
		t.Errorf("no Retry-After: %v", res.header)
	}
}

// The stream of a client that has left ends at once, and not with the write of the next heartbeat.
func TestChangesEndWithTheClient(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "1"})
	r := startReady(t, b.Addr())
	followers := func(n string) bool {
		return strings.Contains(string(r.do(t, "GET", "/metrics").body), "changes_followers "+n+"\n")
	}
	s := r.follow(t, "/changes")
	eventually.True(t, "the client follows", func() bool { return followers("1") })
	s.body.Close()
	left := time.Now()
	eventually.True(t, "the stream has ended", func() bool { return followers("0") })
	if took := time.Since(left); took > heartbeat/2 {
		t.Errorf("the stream ended %v after the client had left", took)
	}
	if ended := string(r.do(t, "GET", "/metrics").body); strings.Contains(ended, `reason="left"`) {
		t.Error("the reader counts the end as its own")
	}
}

// At SIGTERM every stream ends at once, cleanly, and a poll answers with its position.
func TestChangesEndWithTheReader(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "1"})
	r := startReady(t, b.Addr(), func(c *Config) { c.Drain = 5 * time.Second })
	s := r.follow(t, "/changes")
	polled := make(chan response, 1)
	go func() { polled <- r.do(t, "GET", "/changes") }()
	eventually.True(t, "both follow", func() bool { return strings.Contains(string(r.do(t, "GET", "/metrics").body), "changes_followers 2\n") })
	r.Stop()
	if e, ok := s.next(); ok {
		t.Errorf("an event: %+v", e)
	}
	if res := <-polled; res.status != http.StatusOK || !strings.HasPrefix(string(res.body), `{"next":`) {
		t.Errorf("%d %s", res.status, res.body)
	}
	if e, ok := r.follow(t, "/changes").next(); ok { // while it still serves
		t.Errorf("an event: %+v", e)
	}
	if res := r.do(t, "GET", "/post?id=a"); res.status != http.StatusOK {
		t.Errorf("the drain is over: %d", res.status)
	}
}
