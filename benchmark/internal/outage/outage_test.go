package outage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/workload"
)

// stored is a post in Redis.
type stored struct {
	version int
	body    []byte
}

// fake is a writer, two readers and their Redis.
type fake struct {
	second string // address of the second reader

	mu      sync.Mutex // guards the fields below
	redis   map[string]stored
	version int
	down    bool                                      // writes are answered with 503
	behind  bool                                      // the second reader does not receive writes
	busy    int                                       // number of reads from Redis that are still to be answered with 503
	seen    map[string]bool                           // posts that the second reader has
	tamper  func(addr, path string, s stored) *stored // changes an answer; returns nil for a 404
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.URL.Query().Get("id")
	s, ok := f.redis[id]
	switch {
	case r.Method == http.MethodPost && f.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Method == http.MethodPost:
		body, _ := io.ReadAll(r.Body)
		p, err := post.Decode(bytes.TrimSpace(body))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.version++
		f.redis[p.ID] = stored{f.version, p.Encode(time.Unix(1e9, 0)).Body}
		f.seen[p.ID] = !f.behind
		w.Header().Set("X-Version", fmt.Sprint(f.version))
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodDelete:
		delete(f.redis, id)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/post-redis" && f.busy > 0:
		f.busy--
		w.WriteHeader(http.StatusServiceUnavailable)
	case !ok || r.Host == f.second && !f.seen[id]:
		http.NotFound(w, r)
	default:
		if f.tamper != nil {
			changed := f.tamper(r.Host, r.URL.Path, s)
			if changed == nil {
				http.NotFound(w, r)
				return
			}
			s = *changed
		}
		w.Header().Set("X-Version", fmt.Sprint(s.version))
		w.Write(s.body)
	}
}

// begin starts the servers and the writes, and waits until both readers serve new writes.
func begin(t *testing.T) (*fake, *Writes) {
	f := &fake{redis: map[string]stored{}, seen: map[string]bool{}}
	var addrs []string
	for range 3 {
		s := httptest.NewServer(f)
		t.Cleanup(s.Close)
		addrs = append(addrs, s.Listener.Addr().String())
	}
	f.second = addrs[2]
	w := Start(t.Context(), Config{Writer: addrs[0], Readers: addrs[1:], Rate: 500, Mix: workload.NewMix(), Counts: new(load.Counts)})
	t.Cleanup(w.Stop)
	awaitRecovery(t, w)
	return f, w
}

// awaitRecovery waits until every reader has served a write that was sent after the call.
func awaitRecovery(t *testing.T, w *Writes) {
	t.Helper()
	now := time.Now()
	eventually.Nil(t, func() error { return w.Recovered(now) })
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// fault makes writes fail for d, and then makes the second reader lag for d.
func (f *fake) fault(t *testing.T, w *Writes, d time.Duration) {
	t.Helper()
	w.Fault()
	f.set(func() { f.down = true })
	time.Sleep(d) // the fault lasts for d
	f.set(func() { f.down, f.behind = false, true })
	time.Sleep(d)
	f.set(func() { f.behind = false })
	awaitRecovery(t, w)
	w.Stop()
	for id := range f.seen {
		f.seen[id] = true // it catches up
	}
}

func TestResult(t *testing.T) {
	f, w := begin(t)
	const d = 300 * time.Millisecond
	f.fault(t, w, d)
	f.busy = 3
	r, err := w.Result(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// An answer in flight when the fault begins shortens the outage.
	if r.Out < 2*d/3 || r.Out > d+5*time.Second || r.InSync < 2*d || r.InSync > 2*d+5*time.Second {
		t.Errorf("no write for %v and in sync after %v, want about %v and a little more than %v", r.Out, r.InSync, d, 2*d)
	}
	if r.Lost != 0 || r.Refused == 0 || r.Acknowledged != len(f.redis) || r.Acknowledged+r.Refused != w.sent {
		t.Errorf("%+v of %d writes, and Redis has %d", r, w.sent, len(f.redis))
	}
	if got := w.Counts.Bodies.Load(); got != int64(3*r.Acknowledged) {
		t.Errorf("%d bodies were checked, want each of %d posts in Redis and on two readers", got, r.Acknowledged)
	}
	if err := w.Clean(t.Context()); err != nil || len(f.redis) != 0 {
		t.Errorf("%d posts are left (%v)", len(f.redis), err)
	}
}

// An acknowledged write that Redis does not have is lost, whether it was sent before or after the outage.
func TestLost(t *testing.T) {
	f, w := begin(t)
	f.fault(t, w, 50*time.Millisecond)
	for _, a := range []int{0, len(w.acked) / 2, len(w.acked) - 1} {
		delete(f.redis, w.post(w.acked[a].number).ID)
	}
	if r, err := w.Result(t.Context()); err != nil || r.Lost != 3 {
		t.Errorf("%+v (%v), want 3 lost writes", r, err)
	}
}

// An answer of a reader that differs from Redis, or from the write, ends the run.
func TestWrong(t *testing.T) {
	f, w := begin(t)
	f.fault(t, w, 50*time.Millisecond)
	victim := w.acked[len(w.acked)/2]
	for name, tamper := range map[string]func(addr, path string, s stored) *stored{
		"serves": func(addr, path string, s stored) *stored {
			if addr == f.second && path == "/post" && fmt.Sprint(s.version) == victim.version {
				return nil
			}
			return &s
		},
		"has version": func(_, path string, s stored) *stored {
			if path == "/post-redis" && fmt.Sprint(s.version) == victim.version {
				s.version++
			}
			return &s
		},
		"but": func(_, _ string, s stored) *stored {
			if fmt.Sprint(s.version) == victim.version {
				s.body = bytes.Replace(s.body, []byte("Post"), []byte("post"), 1)
			}
			return &s
		},
	} {
		f.tamper = tamper
		_, err := w.Result(t.Context())
		var wrong *load.WrongError
		if !errors.As(err, &wrong) || !strings.Contains(wrong.Reason, name) {
			t.Errorf("%v, want a wrong answer that says %q", err, name)
		}
	}
}

// The outage is the longest time without an acknowledgement that ended after the fault, even if it began before.
func TestOutage(t *testing.T) {
	began := time.Now()
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	w := &Writes{fault: at(100)}
	for _, seconds := range []int{10, 90, 99, 101, 102, 105, 120, 130, 131} {
		w.acked = append(w.acked, write{at: at(seconds)})
	}
	var r Result
	if ended := w.outage(&r); r.Out != 15*time.Second || !ended.Equal(at(120)) {
		t.Errorf("no write for %v until %v, want 15 s until second 120", r.Out, ended.Sub(began))
	}
	w.acked = w.acked[:4]
	r = Result{}
	if ended := w.outage(&r); r.Out != 2*time.Second || !ended.Equal(at(101)) {
		t.Errorf("no write for %v until %v, want 2 s until second 101", r.Out, ended.Sub(began))
	}
}
