// Package load generates the reads that the benchmark measures: in a closed loop with wrk, which sends the
// next request of a connection when the previous one is answered, and at a constant rate, where a late
// answer does not delay the requests after it.
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

// WrongError is a wrong answer. It invalidates everything that was measured at the same time.
type WrongError struct {
	Reason string
	Failed bool // the request failed, and no wrong content was served
}

func (e *WrongError) Error() string {
	if e.Failed {
		return "a read failed: " + e.Reason
	}
	return "WRONG ANSWER: " + e.Reason
}

// Wrong returns a WrongError.
func Wrong(format string, args ...any) error {
	return &WrongError{Reason: fmt.Sprintf(format, args...)}
}

// Failed returns the WrongError of a request that failed.
func Failed(format string, args ...any) error {
	return &WrongError{Reason: fmt.Sprintf(format, args...), Failed: true}
}

// WrongStatus returns the WrongError of an answer with a status that is not 200.
func WrongStatus(id string, status int, body []byte) error {
	if status >= http.StatusInternalServerError {
		return Failed("%s was answered with status %d: %.200q", id, status, body)
	}
	return Wrong("%s was answered with status %d: %.200q", id, status, body)
}

// Reads draws ids of a mix from a Zipf distribution and checks the answers. The posts must not change.
type Reads struct {
	Mix   *workload.Mix
	Posts int // ranks from 0

	mu    sync.Mutex // guards right
	right map[int][]byte
}

// CheckFunc returns a *WrongError when the answer for a rank is wrong. It may keep body and does not change
// it.
type CheckFunc func(rank, status int, body []byte) error

// Theta is the skew of the reads, the one of YCSB, with which caches are usually compared.
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

// Asked returns n posts to ask for. The same seed draws the same ones.
func (r *Reads) Asked(seed uint64, n int) []Asked {
	asked := make([]Asked, n)
	for i, rank := range r.Draw(seed, n) {
		asked[i] = Asked{rank, workload.MixID(rank)}
	}
	return asked
}

// Check is a CheckFunc: an answer has the written content, and the same bytes each time.
func (r *Reads) Check(rank, status int, body []byte) error {
	if status != http.StatusOK {
		return WrongStatus(workload.MixID(rank), status, body)
	}
	// The first answer is parsed and hashed, later ones are compared with it: hashing every answer would
	// cost more than the load that is generated.
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

// Counts is how many answers a whole run has checked.
type Counts struct {
	Statuses atomic.Int64 // answers whose status was checked
	Bodies   atomic.Int64 // answers whose bodies were compared with the written post, byte for byte
}

// Sample is a client that reads posts one after the other and checks each answer. It runs beside wrk,
// which cannot check bodies itself without a loss: a script that looks at every answer costs wrk a third of
// its pipelined rate.
type Sample struct {
	Addr, Path, Header string
	Asked              []Asked
	Check              CheckFunc
	Pause              time.Duration // between two requests
}

// Run reads until ctx is done. It returns how long each request took; the error is the first wrong answer.
func (s Sample) Run(ctx context.Context, counts *Counts) (latencies []time.Duration, err error) {
	conn, err := wire.Dial(ctx, s.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for i := 0; ctx.Err() == nil; i++ {
		asked := s.Asked[i%len(s.Asked)]
		began := time.Now()
		a, err := conn.Get(s.Path+"?id="+asked.ID, s.Header)
		latencies = append(latencies, time.Since(began))
		if err != nil {
			return nil, Failed("GET %s%s?id=%s: %v", s.Addr, s.Path, asked.ID, err)
		}
		if err := s.Check(asked.Rank, a.Status, a.Body); err != nil {
			return nil, err
		}
		counts.Statuses.Add(1)
		counts.Bodies.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(s.Pause):
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
