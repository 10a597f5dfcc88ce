package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/internal/workload"
)

const posts = 500

// server serves the posts of a mix as a reader does; tamper may change an answer.
func server(t *testing.T, mix *workload.Mix, tamper func(n int64, rank int, w http.ResponseWriter, body []byte) []byte) string {
	t.Helper()
	bodies := make([][]byte, posts)
	for rank := range bodies {
		bodies[rank] = mix.Post(rank, 0).Encode(time.Unix(1.7e9, 0)).Body
	}
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rank, err := strconv.Atoi(strings.TrimPrefix(r.URL.Query().Get("id"), workload.MixPrefix))
		if err != nil || rank >= posts {
			http.NotFound(w, r)
			return
		}
		body := bodies[rank]
		w.Header().Set("X-Served-By", fmt.Sprint("reader-", rank%3))
		if tamper != nil {
			body = tamper(n.Add(1), rank, w, body)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// corrupt flips a bit in one answer in a thousand.
func corrupt(n int64, _ int, _ http.ResponseWriter, body []byte) []byte {
	if n%1000 == 0 {
		body = slices.Clone(body)
		body[len(body)/2] ^= 1
	}
	return body
}

func TestSteady(t *testing.T) {
	mix := workload.NewMix()
	reads := &Reads{Mix: mix, Posts: posts}
	var counts Counts
	l := Steady{Addr: server(t, mix, nil), Path: "/post", Rate: 500, Connections: 8, Duration: time.Second}
	r, err := l.Run(t.Context(), reads, reads.Draw(1, 1000), &counts, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Latencies) != 500 || len(r.Served) != 500 || counts.Bodies.Load() != 500 || len(r.Failed) != 0 {
		t.Errorf("%d latencies, %d answers, %d bodies checked, %d failed; want 500, 500, 500, 0", len(r.Latencies), len(r.Served), counts.Bodies.Load(), len(r.Failed))
	}
	if !slices.IsSorted(r.Latencies) || r.Latencies[0] <= 0 {
		t.Errorf("latencies from %v, sorted: %v", r.Latencies[0], slices.IsSorted(r.Latencies))
	}
	if r.Rate > 510 {
		t.Errorf("%.0f requests/s were sent, want 500", r.Rate)
	}
}

// Each request is due at its own time, however late the previous one was.
func TestSchedule(t *testing.T) {
	s := &schedule{interval: 10 * time.Millisecond, limit: 5, most: 100 * time.Millisecond}
	for _, c := range []struct {
		elapsed time.Duration
		hits    uint64
		wait    time.Duration
		stop    bool
	}{
		{0, 0, 0, false},
		{3 * time.Millisecond, 1, 7 * time.Millisecond, false},
		{25 * time.Millisecond, 2, -5 * time.Millisecond, false},
		{25 * time.Millisecond, 3, 5 * time.Millisecond, false},
		{50 * time.Millisecond, 5, 0, true},
		{100 * time.Millisecond, 3, -70 * time.Millisecond, true}, // the time limit has passed
	} {
		if wait, stop := s.Pace(c.elapsed, c.hits); wait != c.wait || stop != c.stop {
			t.Errorf("after %v and %d requests: wait %v, stop %v; want %v, %v", c.elapsed, c.hits, wait, stop, c.wait, c.stop)
		}
	}
	if due := s.due(4).Sub(s.began); due != 40*time.Millisecond {
		t.Errorf("the fourth request is due after %v, want 40ms", due)
	}
}

// While one answer is slow, the requests that become due wait for the connection. The wait is part of their latency,
// although each is answered quickly once it is sent.
func TestLatencyIncludesTheWait(t *testing.T) {
	const stall = 500 * time.Millisecond
	mix := workload.NewMix()
	addr := server(t, mix, func(n int64, _ int, _ http.ResponseWriter, body []byte) []byte {
		if n == 10 {
			time.Sleep(stall)
		}
		return body
	})
	reads := &Reads{Mix: mix, Posts: posts}
	l := Steady{Addr: addr, Path: "/post", Rate: 200, Connections: 1, Duration: time.Second}
	r, err := l.Run(t.Context(), reads, reads.Draw(1, 1000), new(Counts), false)
	if err != nil {
		t.Fatal(err)
	}
	slow := 0
	for _, latency := range r.Latencies {
		if latency > stall/2 {
			slow++
		}
	}
	// Half of the 100 requests that became due during the stall waited for more than half of it.
	if slow < 45 {
		t.Errorf("%d of %d latencies are above %v, want at least 45: the wait is missing in the others", slow, len(r.Latencies), stall/2)
	}
	if late := measure.Quantile(r.Late, 1); late < stall*8/10 {
		t.Errorf("requests were sent at most %v late, although the stall took %v", late, stall)
	}
}

func TestSteadyDetectsWrongAnswers(t *testing.T) {
	mix := workload.NewMix()
	for name, c := range map[string]struct {
		tamper  func(int64, int, http.ResponseWriter, []byte) []byte
		mayFail bool
	}{
		"one byte in a thousand answers":                {corrupt, false},
		"one byte in a thousand answers during a fault": {corrupt, true},
		"another post, once": {func(n int64, rank int, _ http.ResponseWriter, body []byte) []byte {
			if n == 700 {
				return mix.Post(rank+1, 0).Encode(time.Unix(1.7e9, 0)).Body
			}
			return body
		}, true},
		"always another post": {func(_ int64, rank int, _ http.ResponseWriter, body []byte) []byte {
			return mix.Post(rank+1, 0).Encode(time.Unix(1.7e9, 0)).Body
		}, true},
		"a valid post that differs from the first answer": {func(n int64, rank int, _ http.ResponseWriter, body []byte) []byte {
			if n > 700 {
				return mix.Post(rank, 0).Encode(time.Unix(1.8e9, 0)).Body
			}
			return body
		}, true},
		"a missing post": {func(n int64, _ int, w http.ResponseWriter, body []byte) []byte {
			if n == 700 {
				w.WriteHeader(http.StatusNotFound)
				return nil
			}
			return body
		}, true},
		"a failed request without a fault": {func(n int64, _ int, w http.ResponseWriter, body []byte) []byte {
			if n == 700 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return body
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			reads := &Reads{Mix: mix, Posts: posts}
			l := Steady{Addr: server(t, mix, c.tamper), Path: "/post", Rate: 2000, Connections: 8, Duration: 2 * time.Second}
			r, err := l.Run(t.Context(), reads, reads.Draw(1, 1000), new(Counts), c.mayFail)
			var wrong *WrongError
			if !errors.As(err, &wrong) || r != nil {
				t.Errorf("got %v, %v; want no result and a WrongError", r, err)
			}
		})
	}
}

// A request that fails during a fault is counted and is not a wrong answer.
func TestSteadyCountsFailures(t *testing.T) {
	mix := workload.NewMix()
	addr := server(t, mix, func(n int64, _ int, w http.ResponseWriter, body []byte) []byte {
		if n%100 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
		return body
	})
	reads := &Reads{Mix: mix, Posts: posts}
	l := Steady{Addr: addr, Path: "/post", Rate: 1000, Connections: 8, Duration: time.Second}
	r, err := l.Run(t.Context(), reads, reads.Draw(1, 1000), new(Counts), true)
	if err != nil || len(r.Failed) != 10 || len(r.Failures) != 10 || r.Failures[0].Reason != "502 Bad Gateway" {
		t.Errorf("got %+v (%v), want 10 failures", r, err)
	}
}

func TestSteadyEndsWithContext(t *testing.T) {
	mix := workload.NewMix()
	reads := &Reads{Mix: mix, Posts: posts}
	ctx, cancel := context.WithCancel(t.Context())
	var requests atomic.Int64
	addr := server(t, mix, func(n int64, _ int, _ http.ResponseWriter, body []byte) []byte {
		if requests.Store(n); n == 100 {
			cancel()
		}
		return body
	})
	l := Steady{Addr: addr, Path: "/post", Rate: 1000, Connections: 4, Duration: time.Hour}
	r, err := l.Run(ctx, reads, reads.Draw(1, 1000), new(Counts), false)
	if !errors.Is(err, context.Canceled) || r == nil || int64(len(r.Latencies)) != requests.Load() {
		t.Errorf("got %v (%v), want %d latencies and context.Canceled", r, err, requests.Load())
	}
}

func wrk(t *testing.T, reads *Reads, counts *Counts) *Wrk {
	t.Helper()
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skip("wrk is not installed")
	}
	w, err := NewWrk(reads.Keys(1, ListLength), reads.Keys(2, ListLength), reads.Check, counts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestClosed(t *testing.T) {
	mix := workload.NewMix()
	reads := &Reads{Mix: mix, Posts: posts}
	var counts Counts
	for _, depth := range []int{1, 4} {
		c := Closed{Addr: server(t, mix, nil), Path: "/post", Connections: 4, Threads: 2, Depth: depth, Duration: time.Second}
		r, err := wrk(t, reads, &counts).Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Rate() < 10 || len(r.Latencies) < 5 || !slices.IsSorted(r.Latencies) || r.Latencies[0] <= 0 || r.Bytes < 200*r.Requests || r.CPU <= 0 {
			t.Errorf("depth %d: %+v", depth, r)
		}
	}
	if counts.Bodies.Load() == 0 || counts.Statuses.Load() < 20 {
		t.Errorf("%d bodies and %d statuses were checked", counts.Bodies.Load(), counts.Statuses.Load())
	}
}

func TestClosedDetectsWrongAnswers(t *testing.T) {
	mix := workload.NewMix()
	reads := &Reads{Mix: mix, Posts: posts}
	for name, tamper := range map[string]func(int64, int, http.ResponseWriter, []byte) []byte{
		"one bad status in a thousand, which only wrk receives": func(n int64, _ int, w http.ResponseWriter, body []byte) []byte {
			if n%1000 == 999 {
				w.WriteHeader(http.StatusInternalServerError)
			}
			return body
		},
		"bodies of frequently read posts": func(_ int64, rank int, _ http.ResponseWriter, body []byte) []byte {
			if rank < 20 { // half of the reads
				return body[:len(body)-1]
			}
			return body
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := Closed{Addr: server(t, mix, tamper), Path: "/post", Connections: 4, Threads: 1, Depth: 1, Duration: time.Second}
			_, err := wrk(t, reads, new(Counts)).Run(t.Context(), c)
			var wrong *WrongError
			if !errors.As(err, &wrong) {
				t.Errorf("got %v, want a WrongError", err)
			}
		})
	}
}

func TestClosedEndsWithContext(t *testing.T) {
	mix := workload.NewMix()
	reads := &Reads{Mix: mix, Posts: posts}
	ctx, cancel := context.WithCancel(t.Context())
	addr := server(t, mix, func(n int64, _ int, _ http.ResponseWriter, body []byte) []byte {
		if n == 100 {
			cancel()
		}
		return body
	})
	c := Closed{Addr: addr, Path: "/post", Connections: 4, Threads: 1, Depth: 1, Duration: time.Hour}
	if _, err := wrk(t, reads, new(Counts)).Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
