// Package load makes the reads that the benchmark measures: closed-loop with wrk, which asks again
// as soon as it is answered; and at a constant rate, where an answer that is late does not delay the
// requests after it.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// WrongError is an answer that is not the right one. What was measured beside it counts for nothing.
type WrongError struct{ Reason string }

func (e *WrongError) Error() string { return "WRONG ANSWER: " + e.Reason }

// Wrong returns a WrongError.
func Wrong(format string, args ...any) error {
	return &WrongError{Reason: fmt.Sprintf(format, args...)}
}

// Reads says which posts are asked for - ids of a mix, drawn from a Zipf distribution - and what the
// right answers are. The posts must not change.
type Reads struct {
	Mix   *workload.Mix
	Posts int // ranks from 0

	mu    sync.Mutex // guards right
	right map[int][]byte
}

// CheckFunc returns a *WrongError when an answer for a rank is wrong. It keeps body and does not
// change it.
type CheckFunc func(rank, status int, body []byte) error

// Theta is the skew of the reads: that of YCSB, with which caches are usually compared.
const Theta = 0.99

// Draw returns n ranks. The same seed draws the same ones.
func (r *Reads) Draw(seed uint64, n int) []int {
	z := workload.NewZipf(seed, r.Posts, Theta)
	ranks := make([]int, n)
	for i := range ranks {
		ranks[i] = z.Next()
	}
	return ranks
}

// Check is a CheckFunc: an answer has what was written, and the same bytes each time.
func (r *Reads) Check(rank, status int, body []byte) error {
	if status != http.StatusOK {
		return Wrong("%s was answered with status %d: %.200q", workload.MixID(rank), status, body)
	}
	// The first answer is taken apart, those after it are compared with it: at the rates of an open
	// loop a hash of each would be the load.
	r.mu.Lock()
	right, ok := r.right[rank]
	r.mu.Unlock()
	if ok && bytes.Equal(right, body) {
		return nil
	}
	if err := r.Mix.Check(rank, 0, body); err != nil {
		return Wrong("%v", err)
	}
	if ok {
		return Wrong("%s changed: %.200q, then %.200q", workload.MixID(rank), right, body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.right == nil {
		r.right = map[int][]byte{}
	}
	r.right[rank] = body
	return nil
}

func target(path string, rank int) string { return path + "?id=" + workload.MixID(rank) }

// Counts is how many answers were looked at, over a whole run.
type Counts struct {
	Statuses atomic.Int64 // answers whose status was checked
	Bodies   atomic.Int64 // answers that were compared with what was written, byte for byte
}

// samplePause is what Sample waits between two requests: about a thousand of them a second.
const samplePause = time.Millisecond

// Sample reads posts one after the other until ctx is done and checks each answer. It returns how
// long each took; the error is the first answer that is wrong. It stands beside wrk, which could check bodies itself only at the price
// of the load it makes: a script that looks at every answer costs it a third of its pipelined rate.
func Sample(ctx context.Context, addr, path, header string, ranks []int, check CheckFunc, counts *Counts) (latencies []time.Duration, err error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for i := 0; ctx.Err() == nil; i++ {
		rank := ranks[i%len(ranks)]
		began := time.Now()
		a, err := conn.Get(target(path, rank), header)
		latencies = append(latencies, time.Since(began))
		if err != nil {
			return nil, Wrong("GET %s%s: %v", addr, target(path, rank), err)
		}
		if err := check(rank, a.Status, a.Body); err != nil {
			return nil, err
		}
		counts.Statuses.Add(1)
		counts.Bodies.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(samplePause):
		}
	}
	return latencies, nil
}

// beside runs work and, as long as it takes, sample; a wrong answer ends both.
func beside(ctx context.Context, sample, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var found error
	wg.Go(func() {
		if found = sample(ctx); found != nil {
			cancel()
		}
	})
	err := work(ctx)
	cancel()
	wg.Wait()
	if found != nil && !errors.Is(found, context.Canceled) {
		return found
	}
	return err
}
