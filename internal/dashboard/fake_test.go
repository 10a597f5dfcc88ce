package dashboard

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/state"
)

// fakeStack is a writer and readers with the endpoints that the dashboard uses. A reader shows a write when the test
// applies it.
type fakeStack struct {
	token string
	// deliver is called for a write with the given version; nil applies the write to every reader.
	deliver func(f *fakeStack, version int64)

	mu      sync.Mutex // guards all fields below
	state   map[string]string
	version map[string]int64  // version of the post by reader; 0 means absent
	digest  map[string]string // digest of the reader at version 7, "" for a reader without one

	writes atomic.Int64
	procs  []state.Process
}

func newFakeStack(t *testing.T) *fakeStack {
	f := &fakeStack{
		state: make(map[string]string), version: make(map[string]int64),
		digest: map[string]string{"reader-1": "00c0ffee00c0ffee", "reader-2": "00c0ffee00c0ffee"},
	}
	serve := func(name, role string, h http.Handler) {
		srv := httptest.NewServer(h)
		t.Cleanup(srv.Close)
		f.state[name] = state.Ready
		f.procs = append(f.procs, state.Process{
			Name: name, Role: role, PID: 1000 + len(f.procs), Address: strings.TrimPrefix(srv.URL, "http://"), Metrics: srv.URL + "/metrics",
		})
	}
	serve("writer", "writer", f.writer())
	for _, name := range []string{"reader-1", "reader-2"} {
		serve(name, "reader", f.reader(name))
	}
	return f
}

const fakeEpoch = "00000000000000aa"

func (f *fakeStack) writer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE writer_writes_total counter\nwriter_writes_total{op=\"create\",outcome=\"ok\"} %d\n", f.writes.Load())
	})
	mux.HandleFunc("POST /create", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"status":401,"detail":"the token is missing"}`)
			return
		case strings.Contains(string(body), "refuse me"):
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"status":400,"detail":"the title has too much to say","field":"title"}`)
			return
		}
		v := f.writes.Add(1)
		if f.deliver != nil {
			f.deliver(f, v)
		} else {
			f.apply("reader-1", v)
			f.apply("reader-2", v)
		}
		w.Header().Set("X-Version", fmt.Sprintf("%s-%d", fakeEpoch, v))
		w.WriteHeader(http.StatusCreated)
	})
	return mux
}

func (f *fakeStack) reader(name string) http.Handler {
	var reads atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE http_requests_total counter\nhttp_requests_total{route=\"/post\",method=\"get\",code=\"200\"} %d\n# TYPE cache_entries gauge\ncache_entries 3\n", reads.Load())
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.digest[name] == "" {
			io.WriteString(w, `{"ready":true}`)
			return
		}
		fmt.Fprintf(w, `{"digest":{"value":%q,"version":7,"epoch":%q}}`, f.digest[name], fakeEpoch)
	})
	mux.HandleFunc("GET /post", func(w http.ResponseWriter, r *http.Request) {
		reads.Add(1)
		f.mu.Lock()
		v := f.version[name]
		f.mu.Unlock()
		if v == 0 {
			http.NotFound(w, r)
			return
		}
		tag := fmt.Sprintf(`"%d"`, v)
		w.Header().Set("ETag", tag)
		w.Header().Set("X-Version", fmt.Sprintf("%s-%d", fakeEpoch, v))
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
		}
	})
	return mux
}

func (f *fakeStack) apply(reader string, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version[reader] = version
}

func (f *fakeStack) setState(name, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.procs {
		if f.procs[i].Name == name && f.state[name] == state.Restarting {
			f.procs[i].PID += 1000 // another process
		}
	}
	f.state[name] = to
}

func (f *fakeStack) processes(context.Context) []state.Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := append([]state.Process{}, f.procs...)
	for i := range out {
		out[i].State = f.state[out[i].Name]
		if out[i].State == state.Restarting {
			out[i].PID, out[i].Detail = 0, "signal: killed"
		}
	}
	return out
}

// dashboard returns a dashboard over the stack, as it is served.
func (f *fakeStack) dashboard(t *testing.T) (*Dashboard, *httptest.Server) {
	d := New(Config{Processes: f.processes, Log: events.NewLog(), Controls: true})
	mux := http.NewServeMux()
	mux.Handle("/", d)
	mux.HandleFunc("POST /api/load", func(w http.ResponseWriter, _ *http.Request) {
		httpkit.Problem{Status: http.StatusConflict, Detail: "the fake stack takes no load"}.WriteTo(w)
	})
	srv := httptest.NewServer(LocalOnly(mux))
	t.Cleanup(srv.Close)
	return d, srv
}
