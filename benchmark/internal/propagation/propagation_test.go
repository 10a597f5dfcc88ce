package propagation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
	"heavy-read-api/internal/workload"
)

// site is a writer, and readers that each serve a write only after a delay.
type site struct {
	delays []time.Duration          // by reader
	tamper func(body []byte) []byte // changes an answer; may be nil

	mu      sync.Mutex // guards the fields below
	posts   map[string][]version
	deleted int
	written uint64
}

// version is a body and the time of its write.
type version struct {
	at   time.Time
	body []byte
	etag string
}

func (s *site) start(t *testing.T) Config {
	t.Helper()
	s.posts = map[string][]version{}
	serve := func(h http.HandlerFunc) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	c := Config{Writer: serve(s.write), Header: "Authorization: Bearer secret\r\n", Mix: workload.NewMix(), Counts: new(load.Counts)}
	for _, d := range s.delays {
		c.Readers = append(c.Readers, serve(func(w http.ResponseWriter, r *http.Request) { s.read(w, r, d) }))
	}
	return c
}

func (s *site) write(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodDelete {
		delete(s.posts, r.URL.Query().Get("id"))
		s.deleted++
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var fields map[string]string
	if err := json.NewDecoder(r.Body).Decode(&fields); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	body := post.Post{ID: fields["id"], Title: fields["title"], Content: fields["content"], Author: fields["author"]}.Encode(time.Now()).Body
	etag := fmt.Sprintf("%q", fmt.Sprint(len(s.posts[fields["id"]])))
	s.posts[fields["id"]] = append(s.posts[fields["id"]], version{time.Now(), body, etag})
	s.written++
	w.Header().Set("X-Version", protocol.Token{Epoch: 1, Version: s.written}.String())
	w.Header().Set("ETag", etag)
	w.WriteHeader(http.StatusCreated)
}

func (s *site) read(w http.ResponseWriter, r *http.Request, delay time.Duration) {
	if min, err := protocol.ParseToken(r.Header.Get("X-Min-Version")); err == nil {
		for began := time.Now(); !s.has(min, delay); time.Sleep(100 * time.Microsecond) {
			if time.Since(began) > 5*time.Millisecond {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
	}
	s.mu.Lock()
	versions := slices.Clone(s.posts[r.URL.Query().Get("id")])
	s.mu.Unlock()
	for _, v := range slices.Backward(versions) {
		if time.Since(v.at) < delay {
			continue
		}
		if r.Header.Get("If-None-Match") == v.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		body := v.body
		if s.tamper != nil {
			body = s.tamper(body)
		}
		_, _ = w.Write(body)
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

// has reports whether a reader with that delay has a version. Only one post is written.
func (s *site) has(min protocol.Token, delay time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, versions := range s.posts {
		if i := int(min.Version) - 1; i < len(versions) {
			return time.Since(versions[i].at) >= delay
		}
	}
	return false
}

// The time is that of the delayed reader, also if the wait of the reader ends before the write.
func TestVisible(t *testing.T) {
	for _, delay := range []time.Duration{2 * time.Millisecond, 12 * time.Millisecond} {
		s := &site{delays: []time.Duration{delay}}
		c := s.start(t)
		c.Rate, c.Duration = 50, time.Second
		times, err := Visible(t.Context(), c)
		if err != nil || len(times) < 20 || !slices.IsSorted(times) || times[0] < delay {
			t.Errorf("%d times, the first %v (%v); want sorted ones of at least %v", len(times), times[:min(1, len(times))], err, delay)
		}
		if len(s.posts) != 0 {
			t.Errorf("%d posts were left behind", len(s.posts))
		}
		s = &site{delays: []time.Duration{delay}, tamper: func(b []byte) []byte { b = slices.Clone(b); b[30] ^= 1; return b }}
		c = s.start(t)
		c.Rate, c.Duration = 50, time.Minute
		var wrong *load.WrongError
		if _, err := Visible(t.Context(), c); !errors.As(err, &wrong) {
			t.Errorf("a byte differs: got %v, want a WrongError", err)
		}
	}
}

func TestMeasure(t *testing.T) {
	const fast, slow = 5 * time.Millisecond, 30 * time.Millisecond
	s := &site{delays: []time.Duration{slow, fast}}
	c := s.start(t)
	c.Rate, c.Duration = 150, time.Second // 100 of them are followed
	r, err := Measure(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Everywhere) != 100 || len(r.First) != 100 || len(r.Resolution) != 200 || r.Writes != 150 {
		t.Fatalf("got %d, %d and %d times for %d writes", len(r.Everywhere), len(r.First), len(r.Resolution), r.Writes)
	}
	// No write is visible before the delay of its reader, and Everywhere is the time of the slowest reader.
	if r.Everywhere[0] < slow || r.First[0] < fast {
		t.Errorf("visible everywhere after %v and first after %v, although the readers delay it by %v and %v", r.Everywhere[0], r.First[0], slow, fast)
	}
	if first := measure.Quantile(r.First, 0.5); first >= measure.Quantile(r.Everywhere, 0.5) {
		t.Errorf("the first reader serves it after %v, the last one after %v", first, measure.Quantile(r.Everywhere, 0.5))
	}
	if len(s.posts) != 0 {
		t.Errorf("%d posts were left behind", len(s.posts))
	}
}

func TestMeasureDetectsWrongAnswers(t *testing.T) {
	for name, tamper := range map[string]func([]byte) []byte{
		"a byte":   func(b []byte) []byte { b = slices.Clone(b); b[30] ^= 1; return b },
		"an error": func([]byte) []byte { panic(http.ErrAbortHandler) },
	} {
		s := &site{delays: []time.Duration{0, 0}, tamper: tamper}
		c := s.start(t)
		c.Rate, c.Duration = 20, time.Minute
		_, err := Measure(t.Context(), c)
		var wrong *load.WrongError
		if !errors.As(err, &wrong) {
			t.Errorf("%s: got %v, want a WrongError", name, err)
		}
	}
	s := &site{delays: []time.Duration{0}}
	c := s.start(t)
	c.Rate, c.Duration, c.Header = 20, time.Minute, "Authorization: Bearer another\r\n"
	if _, err := Measure(t.Context(), c); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with another token: got %v, want an error with status 401", err)
	}
}

func TestFloor(t *testing.T) {
	server := redistest.StartEmbedded(t)
	times, err := Floor(t.Context(), &redis.Options{Addr: server.Addr()}, 300, 100, time.Second)
	if err != nil || len(times) != 100 || !slices.IsSorted(times) || times[0] <= 0 {
		t.Errorf("got %d times, the first %v (%v); want 100 sorted ones", len(times), times[:min(1, len(times))], err)
	}
	if _, err := Floor(t.Context(), &redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1}, 300, 100, time.Second); err == nil {
		t.Error("no error without Redis")
	}
}
