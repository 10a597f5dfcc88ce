package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

// BenchmarkPropagation shows where the time between a write and its visibility goes: every case adds a part of the path.
// One write is in flight. Each case ends when a plain subscriber has the message, the last one when a reader answers a
// request that waits for the version of the write.
func BenchmarkPropagation(b *testing.B) {
	for _, fsync := range []string{"everysec", "always"} {
		w := newWorld(b, setup{replicas: -1, redis: []redistest.Option{redistest.Config("appendonly yes", "appendfsync "+fsync)}})
		writer := startProcess(b, "writer", "REDIS_ADDR="+w.redis.Addr(), "LOG_LEVEL=warn")
		reader := startProcess(b, "reader", "REDIS_ADDR="+w.redis.Addr(), "POD_ID=bench", "LOG_LEVEL=warn")
		waitReady(b, writer.addr)
		benchWrite(b, w)
		waitReady(b, reader.addr)
		posts, reads := dialBench(b, writer.addr), dialBench(b, reader.addr)
		ctx := context.Background()
		create := func(i int) string {
			title := fmt.Sprint("title-", fsync, i)
			body := fmt.Sprintf(`{"id":"post1","title":%q,"content":%q}`, title, strings.Repeat("x", 200))
			_, _ = fmt.Fprintf(posts, "POST /create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			return title
		}
		value := string(post.Post{ID: "post1", Title: "title", Content: strings.Repeat("x", 200)}.Encode(time.Now()).Body)
		for _, part := range []struct {
			name  string
			write func(i int)
		}{
			{"publish", func(int) { w.direct.Publish(ctx, "raw", value) }},
			{"set+publish", func(int) {
				p := w.direct.TxPipeline()
				p.Set(ctx, "x", value, 0)
				p.Publish(ctx, "raw", value)
				_, _ = p.Exec(ctx)
			}},
			{"script", func(int) {
				if _, err := w.publisher.Write(ctx, protocol.Write{Op: protocol.Set, Key: "post1", Value: []byte(value)}); err != nil {
					b.Error(err)
				}
			}},
			{"post", func(i int) { create(i) }},
		} {
			b.Run(fsync+"/"+part.name, func(b *testing.B) {
				sub := w.direct.Subscribe(ctx, "raw", protocol.DefaultChannel)
				defer sub.Close()
				for range 2 { // confirmations
					if _, err := sub.Receive(ctx); err != nil {
						b.Fatal(err)
					}
				}
				took := make([]time.Duration, b.N)
				for i := range took {
					began := time.Now()
					done := make(chan struct{})
					go func() { part.write(i); close(done) }()
					if _, err := sub.Receive(ctx); err != nil {
						b.Fatal(err)
					}
					took[i] = time.Since(began)
					<-done
					if part.name == "post" {
						posts.answer(b)
					}
					time.Sleep(2 * time.Millisecond)
				}
				reportLatencies(b, took)
			})
		}
		b.Run(fsync+"/visible", func(b *testing.B) {
			res, err := get(reader.addr, "/post?id=post1")
			if err != nil {
				b.Fatal(err)
			}
			at, err := protocol.ParseToken(res.header.Get("X-Version"))
			if err != nil {
				b.Fatal(err)
			}
			took := make([]time.Duration, b.N)
			for i := range took {
				at.Version++
				_, _ = fmt.Fprintf(reads, "GET /post?id=post1 HTTP/1.1\r\nHost: x\r\nX-Min-Version: %s\r\n\r\n", at)
				time.Sleep(2 * time.Millisecond) // the reader waits for the version
				began := time.Now()
				title := create(i)
				if body := reads.answer(b); !strings.Contains(body, title) {
					b.Fatalf("%s after %s", body, title)
				}
				took[i] = time.Since(began)
				posts.answer(b)
			}
			reportLatencies(b, took)
		})
	}
}

type benchConn struct {
	net.Conn
	in *bufio.Reader
}

func dialBench(b *testing.B, addr string) *benchConn {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &benchConn{conn, bufio.NewReader(conn)}
}

// answer returns the body of the next answer.
func (c *benchConn) answer(b *testing.B) string {
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= http.StatusMultipleChoices {
		b.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	return string(body)
}

// reportLatencies sorts latencies and reports p50 and p99 instead of the time of an operation.
func reportLatencies(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(0, "ns/op")
}
