package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
)

// Rates of BenchmarkReadsBesideFollowers, per second.
const (
	benchWrites = 100
	benchReads  = 1000
)

// BenchmarkReadsBesideFollowers measures what the followers of /changes cost the reads of a reader, which is a process of
// its own. An operation is a read of the schedule; its latency counts from the time at which it was due. It reports the
// reader's CPU time for each change that it delivered, and its memory for each follower.
func BenchmarkReadsBesideFollowers(b *testing.B) {
	for _, followers := range []int{0, 5000} {
		b.Run(fmt.Sprintf("followers=%d", followers), func(b *testing.B) {
			w := newWorld(b, setup{replicas: -1})
			p := startProcess(b, "reader", "REDIS_ADDR="+w.redis.Addr(), "POD_ID=bench", "CHANGES_MAX_FOLLOWERS=10000", "LOG_LEVEL=warn")
			waitReady(b, p.addr)
			benchWrite(b, w)
			idle := p.status(b, "VmRSS:")
			if followers > 0 {
				defer startProcess(b, "followers", "FOLLOW_ADDR="+p.addr, fmt.Sprint("FOLLOWERS=", followers)).kill()
			}
			stop := make(chan struct{})
			var writing sync.WaitGroup
			defer writing.Wait()
			defer close(stop)
			writing.Go(func() {
				tick := time.NewTicker(time.Second / benchWrites)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
						benchWrite(b, w)
					}
				}
			})
			time.Sleep(time.Second) // warms up
			cpu, sent := p.cpu(b), p.metric(b, "changes_events_sent_total")
			b.ResetTimer()
			took := benchRead(b, p.addr, b.N)
			b.StopTimer()
			cpu, sent = p.cpu(b)-cpu, p.metric(b, "changes_events_sent_total")-sent
			reportLatencies(b, took)
			b.ReportMetric(100*cpu.Seconds()/b.Elapsed().Seconds(), "reader-cpu-%")
			if followers > 0 {
				b.ReportMetric(sent/b.Elapsed().Seconds(), "changes/s")
				b.ReportMetric(float64(cpu.Microseconds())/sent, "cpu-us/change")
				b.ReportMetric((p.status(b, "VmRSS:")-idle)/float64(followers), "KiB/follower")
			}
		})
	}
}

// onlyReader hides WriteTo of a connection, with which io.Copy would use a pipe.
type onlyReader struct{ io.Reader }

func benchWrite(b *testing.B, w *world) {
	id := fmt.Sprint("post", w.serial.Add(1)%1000)
	e := post.Post{ID: id, Title: "title", Content: strings.Repeat("x", 200)}.Encode(time.Now())
	if _, err := w.publisher.Write(b.Context(), protocol.Write{Op: protocol.Set, Key: id, Value: e.Body, Tag: e.Sum}); err != nil {
		b.Error(err)
	}
}

// follow is a process that opens streams of /changes at addr, prints a line when all have begun, and discards what they send.
// A process of its own, because thousands of goroutines would delay the reads that are measured.
func follow(addr, streams string) error {
	n, err := strconv.Atoi(streams)
	if err != nil {
		return err
	}
	var discarding sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		_, _ = io.WriteString(conn, "GET /changes HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 200" {
			return fmt.Errorf("%q, %v", line, err)
		}
		discarding.Go(func() { _, _ = io.Copy(io.Discard, onlyReader{conn}) })
	}
	printAddress(addr)
	discarding.Wait()
	return nil
}

// benchRead sends n reads at benchReads per second over 8 connections, and returns their latencies.
func benchRead(b *testing.B, addr string, n int) []time.Duration {
	const conns = 8
	took := make([]time.Duration, n)
	began := time.Now()
	var reading sync.WaitGroup
	for c := range conns {
		reading.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for i := c; i < n; i += conns {
				due := began.Add(time.Duration(i) * time.Second / benchReads)
				time.Sleep(time.Until(due))
				_, _ = io.WriteString(conn, "GET /post?id=post1 HTTP/1.1\r\nHost: x\r\n\r\n")
				res, err := http.ReadResponse(in, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Errorf("%+v %v", res, err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				took[i] = time.Since(due)
			}
		})
	}
	reading.Wait()
	return took
}

// status returns a number in /proc/<pid>/status.
func (p *process) status(t testing.TB, name string) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, found := strings.Cut(string(text), name)
	if err != nil || !found {
		t.Skipf("no %s of the process: %v", name, err)
	}
	n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return n
}

// cpu returns the CPU time of the process so far.
func (p *process) cpu(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if err != nil || len(fields) < 13 {
		t.Fatal(err)
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of 1/100 s
}

// metric returns the value of a metric without labels.
func (p *process) metric(t testing.TB, name string) float64 {
	t.Helper()
	res, err := get(p.addr, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(res.body), "\n"+name+" ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(line, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
