package reader

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/redistest"
)

const plainRead = "GET /post?id=a HTTP/1.1\r\nHost: a\r\n\r\n"

// waitingRead returns a read that waits at least 100 ms, for a version that does not exist.
func (l *lanes) waitingRead() string {
	future := l.token
	future.Version += 1000
	return "GET /post?id=a HTTP/1.1\r\nHost: a\r\nX-Min-Version: " + future.String() + "\r\n\r\n"
}

// samples returns the number of requests that the fast lane has timed, and their total duration. Each
// sample has been observed sampleEvery times.
func (l *lanes) samples(t *testing.T) (n uint64, sum time.Duration) {
	t.Helper()
	var m dto.Metric
	if err := l.taken.Duration.WithLabelValues(postPath).(prometheus.Metric).Write(&m); err != nil {
		t.Fatal(err)
	}
	observed := m.Histogram.GetSampleCount()
	if observed%sampleEvery != 0 {
		t.Errorf("%d observations, want a multiple of %d", observed, sampleEvery)
	}
	return observed / sampleEvery, time.Duration(m.Histogram.GetSampleSum() / sampleEvery * float64(time.Second))
}

// Each connection has exactly one sample among its first sampleEvery requests.
func TestEveryConnectionIsTimed(t *testing.T) {
	l := newLanes(t, waitBudget)
	stream := []byte(strings.Repeat(plainRead, sampleEvery))
	for i := range uint64(sampleEvery) {
		if got := len(exchange(t, l.fast, [][]byte{stream})); got != sampleEvery {
			t.Fatalf("%d answers, want %d", got, sampleEvery)
		}
		if n, _ := l.samples(t); n != i+1 {
			t.Fatalf("%d samples after %d connections, want one for each", n, i+1)
		}
	}
}

// Requests of both lanes have the same weight in the shared duration histogram.
func TestLanesHaveEqualWeight(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	r := startReady(t, b.Addr())
	const reads = 4 * sampleEvery
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	answers := bufio.NewReader(conn)
	for _, request := range []string{plainRead, "POST /post?id=a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"} {
		for range reads {
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
		}
	}
	eventually.Nil(t, func() error { // a read is counted just after its response was written
		var requests, observed float64
		all := r.metrics(t)
		for _, m := range all["http_requests_total"].GetMetric() {
			if hasLabel(m, "route", postPath) {
				requests += m.GetCounter().GetValue()
			}
		}
		for _, m := range all["http_request_duration_seconds"].GetMetric() {
			if hasLabel(m, "route", postPath) {
				observed += float64(m.GetHistogram().GetSampleCount())
			}
		}
		if requests != 2*reads || observed != requests {
			return fmt.Errorf("%v observations of %v requests, want %d of both", observed, requests, 2*reads)
		}
		return nil
	})
}

func hasLabel(m *dto.Metric, name, value string) bool {
	return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == name && l.GetValue() == value })
}

// The sample of a read that waits includes the wait, even though the earlier pipelined responses are flushed
// before it.
func TestSampleIncludesWait(t *testing.T) {
	l := newLanes(t, waitBudget)
	var clients [sampleEvery]*script
	for i := range clients { // one connection samples its first read, another one its second
		clients[i] = newScript([]byte(plainRead + l.waitingRead()))
		l.fast <- clients[i]
	}
	for _, c := range clients {
		if got := c.wait(t); len(got) != 2 || !strings.HasPrefix(got[0], "HTTP/1.1 200 ") || !strings.HasPrefix(got[1], "HTTP/1.1 503 ") {
			t.Fatalf("answers %q", got)
		}
	}
	if n, sum := l.samples(t); n != 2 || sum < 100*time.Millisecond {
		t.Errorf("%d samples with %v in total, want 2 with at least 100 ms", n, sum)
	}
}

// After a client has disconnected its pipelined reads are not served, because each could wait for the whole
// budget.
func TestDisconnectedClientIsNotServed(t *testing.T) {
	l := newLanes(t, waitBudget)
	c := newScript([]byte(strings.Repeat(l.waitingRead(), 8)))
	c.broken = syscall.EPIPE
	l.fast <- c
	c.wait(t)
	if got := testutil.ToFloat64(l.taken.Requests.WithLabelValues(postPath, "get", "503")); got != 1 {
		t.Errorf("%v reads were served, want 1, because the flush before the second one fails", got)
	}
}

func TestNextIDs(t *testing.T) {
	request := func(id string) string { return "GET /post?id=" + id + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	for _, tt := range []struct {
		name, bytes string
		ids         int
		last        string
		rest        int
	}{
		{"nothing", "", 0, "", 0},
		{"other requests", "POST /post?id=a HTTP/1.1\r\nHost: x\r\n\r\n", 0, "", 0},
		{"two reads", request("a") + request("b"), 2, "b", 0},
		{"a read that has not arrived whole", request("a") + "GET /post?id=b", 1, "a", 0},
		{"an empty id", request(""), 1, "", 0},
		{"more than fit", strings.Repeat(request("a"), store.PrefetchMax-1) + request("b") + request("c"), store.PrefetchMax, "b",
			len(request("c")) + len("HTTP/1.1\r\nHost: x\r\n\r\n")},
	} {
		var ids [store.PrefetchMax][]byte
		n, seen := nextIDs([]byte(tt.bytes), &ids)
		if n != tt.ids || seen != len(tt.bytes)-tt.rest || n > 0 && string(ids[n-1]) != tt.last {
			t.Errorf("%s: %d ids (%q), %d of %d bytes seen; want %d, the last %q, and %d bytes left", tt.name, n, ids[:n], seen, len(tt.bytes), tt.ids, tt.last, tt.rest)
		}
	}
}
