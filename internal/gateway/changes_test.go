package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"heavy-read-api/internal/test/eventually"
)

// TestStream passes every part of a stream on at once, for longer than the timeout of reads, and ends it cleanly when the
// reader or the gateway does.
func TestStream(t *testing.T) {
	t.Parallel()
	parts := make(chan string)
	stream := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
		for part := range parts {
			io.WriteString(w, part)
			_ = http.NewResponseController(w).Flush()
			if part == "end\n" {
				return
			}
			if part == "cut\n" {
				panic(http.ErrAbortHandler)
			}
		}
	})
	const timeout = 50 * time.Millisecond // of reads: much shorter than the stream
	g := start(t, Config{Readers: []string{stream.addr}, Timeout: timeout})
	g.awaitReady(t, 1)
	for _, end := range []string{"end\n", "cut\n", ""} {
		go func() { parts <- "one\n" }()
		res, err := http.Get(g.url("/changes"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || res.Header.Get("X-Accel-Buffering") != "" || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s %v", res.Status, res.Header)
		}
		body := bufio.NewReader(res.Body)
		expect := func(want string) {
			t.Helper()
			if line, err := body.ReadString('\n'); line != want {
				t.Fatalf("%q, %v, want %q", line, err, want)
			}
		}
		expect("one\n")
		began := time.Now()
		eventually.True(t, "the timeout of reads is over", func() bool { return time.Since(began) > 4*timeout })
		parts <- "two\n"
		expect("two\n")
		var wantErr error
		switch end {
		case "end\n":
			parts <- end
			expect(end)
		case "cut\n":
			parts <- end
			expect(end)
			wantErr = io.ErrUnexpectedEOF
		default:
			stopped := make(chan error, 1)
			go func() { stopped <- g.stop() }()
			defer func() {
				if err := <-stopped; err != nil {
					t.Errorf("Run: %v", err)
				}
			}()
		}
		if rest, err := io.ReadAll(body); len(rest) > 0 || err != wantErr {
			t.Errorf("%q: the stream ends with %q, %v, want %v", end, rest, err, wantErr)
		}
	}
	close(parts)
}

// TestPollWaits: a poll waits for longer than the timeout of reads, and the next read on its connection does not.
func TestPollWaits(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	slow := make(chan struct{})
	defer close(slow)
	reader := newReader(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/changes" {
			<-answer
		} else if r.URL.Query().Get("id") == "slow" {
			<-slow
		}
		fmt.Fprint(w, "answer")
	})
	const timeout = 100 * time.Millisecond
	g := start(t, Config{Readers: []string{reader.addr}, Timeout: timeout})
	g.awaitReady(t, 1)
	began := time.Now()
	go func() {
		eventually.True(t, "the timeout of reads is over", func() bool { return time.Since(began) > 3*timeout })
		close(answer)
	}()
	if res, body := do(t, http.MethodGet, g.url("/changes?since=x"), nil); res.StatusCode != http.StatusOK || string(body) != "answer" {
		t.Errorf("%s %s", res.Status, body)
	}
	if res, _ := do(t, http.MethodGet, g.url("/post?id=slow"), nil); res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("a read that hangs: %s", res.Status)
	}
}
