package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/state"
)

func TestCollectorMeasuresEveryProcess(t *testing.T) {
	f := newFakeStack(t)
	d, srv := f.dashboard(t)
	f.apply("reader-1", 1)
	d.history.collect(t.Context())
	for range 5 {
		res, err := http.Get("http://" + f.procs[1].Address + "/post?id=x")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	f.writes.Add(3)
	d.history.collect(t.Context())
	f.setState("reader-2", state.Restarting)
	d.history.collect(t.Context())

	s := getSeries(t, srv, "")
	if len(s.Points) != 3 {
		t.Fatalf("%d points, want 3", len(s.Points))
	}
	if v := s.Points[1].Values; v["reader-1"]["reads"] <= 0 || v["reader-2"]["reads"] != 0 || v["writer"]["writes"] <= 0 || v["reader-1"]["entries"] != 3 {
		t.Errorf("second point %v", v)
	}
	if v, ok := s.Points[2].Values["reader-2"]; ok {
		t.Errorf("a process that is down was measured: %v", v)
	}
	if p := s.Processes[2]; p.Name != "reader-2" || p.State != state.Restarting || p.Detail != "signal: killed" {
		t.Errorf("process %+v", p)
	}

	// Back again it has nothing to be compared with: no rate over the time it was away.
	f.setState("reader-2", state.Ready)
	d.history.collect(t.Context())
	s = getSeries(t, srv, "?last=1")
	if len(s.Points) != 1 {
		t.Fatalf("last=1 gives %d points", len(s.Points))
	}
	if v, ok := s.Points[0].Values["reader-2"]["reads"]; ok {
		t.Errorf("rate %v at the first scrape", v)
	}
	if s = getSeries(t, srv, fmt.Sprintf("?after=%d", s.Points[0].Time)); len(s.Points) != 0 {
		t.Errorf("%d points after the last one", len(s.Points))
	}
}

// For a point of the charts, each process is scraped once. For the events, only processes that count reads are scraped.
func TestOneScrapePerPoint(t *testing.T) {
	var scrapes atomic.Int64
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE apisix_http_status counter\napisix_http_status{code=\"200\",route=\"post\"} %d\n", 10*scrapes.Add(1))
	}))
	defer gateway.Close()
	f := newFakeStack(t)
	f.procs = append(f.procs, state.Process{Name: "gateway", Role: state.Gateway, Metrics: gateway.URL})
	f.state["gateway"] = state.Ready
	d, srv := f.dashboard(t)
	for i, look := range []func(context.Context){d.history.collect, d.history.observe, d.history.collect} {
		f.writes.Add(3)
		look(t.Context())
		if n := scrapes.Load(); n != int64(i+1) {
			t.Errorf("%d scrapes of the gateway after %d looks", n, i+1)
		}
	}
	if s := getSeries(t, srv, ""); s.Totals.Reads != 20 || s.Points[1].Values["gateway"]["reads"] <= 0 || s.Points[1].Values["writer"]["writes"] <= 0 {
		t.Errorf("totals %+v, point %v", s.Totals, s.Points[1].Values)
	}
}

// The totals are those of the gateway and the failures that it has not seen, or those of the clients. Those of a gateway
// whose metrics are old are complete later.
func TestTotals(t *testing.T) {
	var scrapes atomic.Int64
	serve := func(format string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, format, scrapes.Load(), scrapes.Load(), scrapes.Load())
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	processes := []state.Process{
		{Name: "gateway", Role: state.Gateway, State: state.Ready, Refresh: 5 * time.Second, Metrics: serve("# TYPE apisix_http_status counter\n" +
			"apisix_http_status{code=\"200\",route=\"post\"} 10%d\napisix_http_status{code=\"503\",route=\"post\"} 3%d\napisix_http_status{code=\"200\",route=\"health\"} 90%d\n")},
		{Name: "load", Role: state.Load, State: state.Ready, Metrics: serve("# TYPE load_reads_total counter\n" +
			"load_reads_total{result=\"ok\"} 20%d\nload_reads_total{result=\"server_error\"} 3%d\nload_reads_total{result=\"no_answer\"} 4%d\n")},
		{Name: "reader-1", Role: state.Reader, State: state.Ready, PID: 1},
	}
	for _, tt := range []struct {
		byClients     bool
		reads, failed int64
		open          bool
	}{{false, 18, 18, true}, {true, 27, 18, false}} {
		scrapes.Store(0)
		log := events.NewLog()
		all := slices.Clone(processes)
		d := New(Config{Processes: func(context.Context) []state.Process { return slices.Clone(all) }, Log: log, ByClients: tt.byClients})
		d.history.observe(t.Context())
		scrapes.Store(9)
		all[2].PID = 2 // it was restarted
		for range 3 {
			d.history.observe(t.Context())
		}
		if got := log.Totals(); got.Reads != tt.reads || got.Failed != tt.failed {
			t.Errorf("totals by clients (%v): %+v, want %d reads, %d failed", tt.byClients, got, tt.reads, tt.failed)
		}
		if log.Open() != tt.open {
			t.Errorf("an event goes on by clients (%v): %v, want %v", tt.byClients, log.Open(), tt.open)
		}
	}
}

func TestCollectorKeepsFiveMinutes(t *testing.T) {
	f := newFakeStack(t)
	f.procs = nil
	d, _ := f.dashboard(t)
	for range historyLength + 10 {
		d.history.collect(t.Context())
	}
	if n := len(d.history.since(0, 1<<30).Points); n != historyLength {
		t.Errorf("%d points, want %d", n, historyLength)
	}
}

func getSeries(t *testing.T, srv *httptest.Server, query string) series {
	t.Helper()
	res, err := http.Get(srv.URL + "/api/series" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var s series
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// write posts to /api/write and returns the events by name and reader.
func write(t *testing.T, srv *httptest.Server, body string, authorization ...string) (status int, events map[string]event) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/api/write", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Authorization"] = authorization
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events = make(map[string]event)
	if res.StatusCode != http.StatusOK {
		return res.StatusCode, events
	}
	for dec := json.NewDecoder(res.Body); ; {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return res.StatusCode, events
		} else if err != nil {
			t.Fatal(err)
		}
		events[strings.TrimSpace(e.Event+" "+e.Reader)] = e
	}
}

func TestWriteIsWatchedUntilItArrives(t *testing.T) {
	f := newFakeStack(t)
	f.token = "secret"
	f.writes.Store(6) // the next is version 7
	// Reader 1 has an older version, reader 2 the post before the writer has answered, and reader 1
	// gets it a while after.
	f.apply("reader-1", 5)
	f.apply("reader-2", 5)
	const delay = 30 * time.Millisecond
	f.deliver = func(f *fakeStack, version int64) {
		f.apply("reader-2", version)
		time.AfterFunc(delay, func() { f.apply("reader-1", version+1) }) // another write has replaced the post by then, which counts as its arrival
	}
	_, srv := f.dashboard(t)
	status, got := write(t, srv, `{"id":"a b&c","title":"t"}`, "Bearer secret")
	if status != http.StatusOK || got["written"].Status != http.StatusCreated || got["written"].Version != fakeEpoch+"-7" {
		t.Fatalf("status %d, events %+v", status, got)
	}
	late, early := got["arrived reader-1"], got["arrived reader-2"]
	if late.Sent == nil || early.Sent == nil {
		t.Fatalf("events %+v", got)
	}
	// The delay began after the post was sent, so no honest clock shows less.
	if ms := float64(delay) / 1e6; *late.Sent < ms {
		t.Errorf("reader-1 had it after %v ms, it cannot have been less than %v", *late.Sent, ms)
	}
	if *early.Sent <= 0 {
		t.Errorf("reader-2 had it %v ms after it was sent", *early.Sent)
	}
	if got, want := *late.Answered, *late.Sent-*got["written"].Sent; got < want-0.01 || got > want+0.01 {
		t.Errorf("%v ms from the answer, want %v", got, want)
	}
}

func TestWriteTellsWhatWentWrong(t *testing.T) {
	f := newFakeStack(t)
	_, srv := f.dashboard(t)
	if status, _ := write(t, srv, `{"title":"t"}`); status != http.StatusBadRequest {
		t.Errorf("without an id: status %d", status)
	}
	if status, _ := write(t, srv, `no json`); status != http.StatusBadRequest {
		t.Errorf("without JSON: status %d", status)
	}
	if status, _ := write(t, srv, `{"id":"a","content":"`+strings.Repeat("x", maxPost)+`"}`); status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: status %d", status)
	}
	_, got := write(t, srv, `{"id":"a","title":"refuse me"}`)
	if e := got["failed"]; e.Status != http.StatusBadRequest || e.Detail != "the title has too much to say" || len(got) != 1 {
		t.Errorf("refused by the writer: %+v", got)
	}
	f.token = "secret"
	if _, got = write(t, srv, `{"id":"a"}`); got["failed"].Detail != "the token is missing" {
		t.Errorf("without the token: %+v", got)
	}
}

func TestWriteGivesUpOnAReaderThatIsDown(t *testing.T) {
	f := newFakeStack(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	f.procs[2].Address = strings.TrimPrefix(gone.URL, "http://")
	_, srv := f.dashboard(t)
	_, got := write(t, srv, `{"id":"a"}`)
	if _, ok := got["arrived reader-1"]; !ok {
		t.Errorf("the other reader was not watched: %+v", got)
	}
	if e := got["missed reader-2"]; e.Detail != "not arrived after 5s: connection refused" {
		t.Errorf("events %+v", got)
	}
}

// The reads with which the page watches a post are no traffic.
func TestOwnPollsAreNotCounted(t *testing.T) {
	f := newFakeStack(t)
	f.deliver = func(f *fakeStack, version int64) {
		time.AfterFunc(20*time.Millisecond, func() { f.apply("reader-1", version); f.apply("reader-2", version) })
	}
	d, srv := f.dashboard(t)
	d.history.collect(t.Context())
	if _, got := write(t, srv, `{"id":"a"}`); got["arrived reader-1"].Sent == nil {
		t.Fatalf("events %+v", got)
	}
	if n := d.polls.of("reader-1")["reads"]; n < 2 {
		t.Fatalf("the page has polled %v times", n)
	}
	d.history.collect(t.Context())
	s := getSeries(t, srv, "?last=1")
	if v := s.Points[0].Values["reader-1"]; v["reads"] != 0 {
		t.Errorf("%v reads per second, want none: only the page has read", v["reads"])
	}
}

// Digests are compared, and a reader without one is left out.
func TestDigests(t *testing.T) {
	f := newFakeStack(t)
	d, srv := f.dashboard(t)
	d.history.collect(t.Context())
	if s := getSeries(t, srv, ""); s.Agreement != events.Identical || s.Digests["reader-1"] != (events.Digest{Value: "00c0ffee00c0ffee", Version: 7, Epoch: fakeEpoch}) {
		t.Errorf("%q, %+v", s.Agreement, s.Digests)
	}
	f.digest["reader-2"] = "1111111111111111"
	d.history.collect(t.Context())
	if s := getSeries(t, srv, ""); s.Agreement != events.Differ {
		t.Errorf("%q, want that they differ", s.Agreement)
	}
	f.digest["reader-2"] = ""
	d.history.collect(t.Context())
	if s := getSeries(t, srv, ""); len(s.Digests) != 1 || s.Agreement != events.Differ {
		t.Errorf("%q, %+v: one digest alone is no new comparison", s.Agreement, s.Digests)
	}
	clear(f.digest)
	d.history.collect(t.Context())
	if s := getSeries(t, srv, ""); s.Digests != nil || s.Agreement != events.NotKnown {
		t.Errorf("%q, %+v without any digest", s.Agreement, s.Digests)
	}
}

// The alerts that fire come from Prometheus, if there is one.
func TestAlerts(t *testing.T) {
	f := newFakeStack(t)
	prometheus := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/alerts" {
			io.WriteString(w, `{"status":"success","data":{"alerts":[
				{"labels":{"alertname":"ReaderLagging","severity":"warning"},"annotations":{"summary":"reader-1 is behind"},"state":"firing"},
				{"labels":{"alertname":"RedisDown","severity":"critical"},"annotations":{"summary":"none"},"state":"pending"}]}}`)
		}
	}))
	defer prometheus.Close()
	d, srv := f.dashboard(t)
	d.history.collect(t.Context())
	if s := getSeries(t, srv, ""); s.Link != "" || s.Alerts != nil {
		t.Errorf("%+v without a Prometheus", s)
	}
	f.procs = append(f.procs, state.Process{Name: "prometheus", Role: state.Prometheus, Address: strings.TrimPrefix(prometheus.URL, "http://")})
	f.state["prometheus"] = state.Ready
	d.history.collect(t.Context())
	s := getSeries(t, srv, "")
	if want := []alert{{"ReaderLagging", "warning", "reader-1 is behind"}}; s.Link != prometheus.URL || !slices.Equal(s.Alerts, want) {
		t.Errorf("link %q, alerts %+v", s.Link, s.Alerts)
	}
}

func TestTokenReaches(t *testing.T) {
	tests := []struct {
		have, want string
		reaches    bool
	}{
		{"aa-7", "aa-7", true}, {"aa-8", "aa-7", true}, {"aa-6", "aa-7", false}, {"bb-9", "aa-7", false}, {"aa-10", "aa-9", true},
	}
	for _, tt := range tests {
		have, err1 := parseToken(tt.have)
		want, err2 := parseToken(tt.want)
		if err1 != nil || err2 != nil || have.reaches(want) != tt.reaches {
			t.Errorf("%s reaches %s: %v %v %v", tt.have, tt.want, have.reaches(want), err1, err2)
		}
	}
	if (token{}).reaches(token{text: "aa-7", epoch: "aa", version: 7}) {
		t.Error("an absent post has reached a version")
	}
	for _, text := range []string{"", "aa", "-7", "aa-", "aa-x", "aa--1"} {
		if _, err := parseToken(text); err == nil {
			t.Errorf("%q was taken for a token", text)
		}
	}
}

func TestLocalOnly(t *testing.T) {
	h := LocalOnly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	tests := []struct {
		method, host, origin, site string
		status                     int
	}{
		{"GET", "localhost:3000", "", "", 200},
		{"GET", "127.0.0.1:3000", "", "", 200},
		{"GET", "[::1]:3000", "", "", 200},
		{"GET", "localhost", "", "", 200},
		{"GET", "rebound.example", "", "", 403},
		{"GET", "localhost.example:3000", "", "", 403},
		{"GET", "", "", "", 403},
		{"POST", "localhost:3000", "", "", 200}, // curl, make scale
		{"POST", "localhost:3000", "http://localhost:3000", "", 200},
		{"POST", "localhost:3000", "http://localhost:3000", "same-origin", 200},
		{"POST", "localhost:3000", "http://example.com", "", 403},
		{"POST", "localhost:3000", "http://example.com", "cross-site", 403},
		{"POST", "localhost:3000", "http://localhost:8080", "same-site", 403},
		{"POST", "localhost:3000", "null", "", 403},
		{"POST", "rebound.example", "http://rebound.example", "same-origin", 403},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, "/", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		if tt.site != "" {
			r.Header.Set("Sec-Fetch-Site", tt.site)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%+v: status %d", tt, w.Code)
		}
	}
}

func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	_, srv := newFakeStack(t).dashboard(t)
	res, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	policy := res.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	for _, marker := range []string{"/*STYLE*/", "/*SCRIPT*/", "src=\"http", "@import", "innerHTML"} {
		if strings.Contains(string(body), marker) {
			t.Errorf("the page has %q", marker)
		}
	}
	for _, query := range []string{"?after=x", "?last=x"} {
		res, err := http.Get(srv.URL + "/api/series" + query)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", query, res.StatusCode)
		}
	}
}
