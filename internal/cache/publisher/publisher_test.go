package publisher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/test/eventually"
	"heavy-read-api/internal/test/faultnet"
	"heavy-read-api/internal/test/nodetest"
	"heavy-read-api/internal/test/redistest"
)

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1, 100, MaxWrites} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			redistest.Require(b)
			// Without rewrites of the append-only file, which use one of two cores.
			p := newPublisher(b, redistest.Start(b, redistest.Config("auto-aof-rewrite-percentage 0")).Addr())
			value := strings.Repeat("v", 259)
			n := 0
			for b.Loop() {
				batch := make([]protocol.Write, size)
				for i := range batch {
					n++
					batch[i] = set(fmt.Sprint("post-", n), value)
				}
				write(b, p, batch...)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// A write in flight to a server that another write leaves has a known outcome.
func TestWriteAtAServerThatIsLeft(t *testing.T) {
	each(t, func(t *testing.T, addr string) {
		link := faultnet.NewProxy(t, addr)
		f := nodetest.New(t, link.Addr())
		p, err := New(Config{Redis: f})
		if err != nil {
			t.Fatal(err)
		}
		write(t, p, set("a", "1"))
		n, err := f.Node(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		link.Delay(faultnet.ToClient, 50*time.Millisecond)
		written := make(chan error, 1)
		go func() {
			_, err := p.Write(context.Background(), set("a", "2"))
			written <- err
		}()
		eventually.True(t, "write in flight", func() bool { return n.PoolStats().IdleConns == 0 })
		f.Leave(n, errors.New("MOVED 14591 127.0.0.1:1"))
		if err := <-written; err != nil {
			t.Errorf("the write: %v", err)
		}
	})
}
