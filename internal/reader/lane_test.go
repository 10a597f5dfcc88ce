package reader

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

const plainRead = "GET /post?id=a HTTP/1.1\r\nHost: a\r\n\r\n"

// waitingRead is a read that waits at least 100 ms for a version that does not exist.
func (l *lanes) waitingRead() string {
	future := l.token
	future.Version += 1000
	return "GET /post?id=a HTTP/1.1\r\nHost: a\r\nX-Min-Version: " + future.String() + "\r\n\r\n"
}

// samples returns how many requests the fast lane has timed, and their time together.
func (l *lanes) samples(t *testing.T) (n uint64, sum time.Duration) {
	t.Helper()
	var m dto.Metric
	if err := l.taken.Duration.WithLabelValues(postPath).(prometheus.Metric).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.Histogram.GetSampleCount(), time.Duration(m.Histogram.GetSampleSum() * float64(time.Second))
}

// Each connection has exactly one sample among its first sampleEvery requests.
func TestEveryConnectionIsTimed(t *testing.T) {
	l := newLanes(t)
	stream := []byte(strings.Repeat(plainRead, sampleEvery))
	for i := range uint64(sampleEvery) {
		if got := len(exchange(t, l.fast, [][]byte{stream})); got != sampleEvery {
			t.Fatalf("%d answers, want %d", got, sampleEvery)
		}
		if n, _ := l.samples(t); n != i+1 {
			t.Fatalf("%d samples of %d connections", n, i+1)
		}
	}
}

// The sample of a read that waits includes the wait, also when the answers before it are written in
// between.
func TestASampleHasItsWait(t *testing.T) {
	l := newLanes(t)
	var clients [sampleEvery]*script
	for i := range clients { // on one of them the first read is the sample, on another one the second
		clients[i] = newScript([]byte(plainRead + l.waitingRead()))
		l.fast <- clients[i]
	}
	for _, c := range clients {
		if got := c.wait(t); len(got) != 2 || !strings.HasPrefix(got[0], "HTTP/1.1 200 ") || !strings.HasPrefix(got[1], "HTTP/1.1 503 ") {
			t.Fatalf("answers %q", got)
		}
	}
	if n, sum := l.samples(t); n != 2 || sum < 100*time.Millisecond {
		t.Errorf("%d samples of %v together, want 2, of which one is longer than 100 ms", n, sum)
	}
}

// Pipelined reads of a client that is gone are not served: each could wait for the whole budget.
func TestAGoneClientIsNotServed(t *testing.T) {
	l := newLanes(t)
	c := newScript([]byte(strings.Repeat(l.waitingRead(), 8)))
	c.broken = syscall.EPIPE
	l.fast <- c
	c.wait(t)
	if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "503")); got != 1 {
		t.Errorf("%v reads were served, want 1: the write before the second one fails", got)
	}
}
