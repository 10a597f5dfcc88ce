package suite

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

const (
	removers = 32   // connections to the writer
	gap      = 2000 // number of consecutive missing ids after which Remove stops
)

// Remove deletes the posts of the benchmark, from the first id on, and returns their number.
func Remove(ctx context.Context, a target.Addresses) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, deleted, last atomic.Int64 // last: the highest rank that existed
	var wg sync.WaitGroup
	for range removers {
		wg.Go(func() {
			conn, err := wire.Dial(ctx, a.Writer)
			if err != nil {
				cancel(err)
				return
			}
			defer conn.Close()
			for ctx.Err() == nil {
				rank := next.Add(1) - 1
				if rank > last.Load()+gap {
					return
				}
				answer, err := conn.Delete("/post?id="+workload.MixID(int(rank)), a.Authorization())
				switch {
				case err != nil:
					cancel(err)
				case answer.Status == http.StatusNoContent:
					deleted.Add(1)
					for old := last.Load(); rank > old && !last.CompareAndSwap(old, rank); old = last.Load() {
					}
				case answer.Status != http.StatusNotFound:
					cancel(fmt.Errorf("DELETE %s returned %d: %.200s", workload.MixID(int(rank)), answer.Status, answer.Body))
				}
			}
		})
	}
	wg.Wait()
	return int(deleted.Load()), context.Cause(ctx)
}
