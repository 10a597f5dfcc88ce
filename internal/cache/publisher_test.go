package cache

import (
	"fmt"
	"strings"
	"testing"

	"heavy-read-api/internal/redistest"
)

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1, 100, MaxWrites} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			redistest.Require(b)
			// A rewrite of the append-only file would take half of two cores.
			p := publisher(b, redistest.Start(b, redistest.Config("auto-aof-rewrite-percentage 0")).Addr())
			value := strings.Repeat("v", 259)
			n := 0
			for b.Loop() {
				batch := make([]Write, size)
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
