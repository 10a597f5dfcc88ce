// Package load generates the reads that the benchmark measures: in a closed loop with wrk, which sends the
// next request on a connection when the previous one is answered, and at a constant rate, where a late answer
// does not delay later requests.
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
	Failed bool // the request failed; no wrong content was served
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

// WrongStatus returns the WrongError of an answer with a status other than 200.
func WrongStatus(id string, status int, body []byte) error {
	if status >= http.StatusInternalServerError {
		return Failed("GET %s returned status %d: %.200q", id, status, body)
	}
	return Wrong("GET %s returned status %d: %.200q", id, status, body)
}

// Reads draws ids of a mix from a Zipf distribution and checks the answers. The posts must not be updated meanwhile.
type Reads struct {
	Mix   *workload.Mix
	Posts int // number of posts; their ranks begin at 0

	mu    sync.Mutex     // guards first
	first map[int][]byte // first body that was received, by rank
}

// CheckFunc returns a *WrongError when the answer for a rank is wrong. It may retain body but not modify it.
type CheckFunc func(rank, status int, body []byte) error

// Theta is the skew of the Zipf distribution of the reads, which is the default of YCSB.
const Theta = 0.99

// Draw returns n ranks, which depend only on the seed.
func (r *Reads) Draw(seed uint64, n int) []int {
	z := workload.NewZipf(seed, r.Posts, Theta)
	ranks := make([]int, n)
	for i := range ranks {
		ranks[i] = z.Next()
	}
	return ranks
}

// Keys returns n posts to request, which depend only on the seed.
func (r *Reads) Keys(seed uint64, n int) []Key {
	keys := make([]Key, n)
	for i, rank := range r.Draw(seed, n) {
		keys[i] = Key{rank, workload.MixID(rank)}
	}
	return keys
}

// Check is a CheckFunc: a body must have the written content, and the same bytes each time.
func (r *Reads) Check(rank, status int, body []byte) error {
	if status != http.StatusOK {
		return WrongStatus(workload.MixID(rank), status, body)
	}
	// The first answer is parsed and hashed, and later ones are compared with it: hashing every answer would
	// cost more CPU time than sending the requests.
	r.mu.Lock()
	first, ok := r.first[rank]
	r.mu.Unlock()
	if ok && bytes.Equal(first, body) {
		return nil
	}
	if err := r.Mix.Check(rank, 0, body); err != nil {
		return Wrong("%v", err)
	}
	if ok {
		return Wrong("%s changed: %.200q, then %.200q", workload.MixID(rank), first, body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = map[int][]byte{}
	}
	r.first[rank] = body
	return nil
}

// Counts counts the answers that were checked in a whole run.
type Counts struct {
	Statuses atomic.Int64 // answers whose status was checked
	Bodies   atomic.Int64 // answers whose bodies were compared with the written post, byte for byte
}

// Sample is a client that reads posts one after the other and checks each answer. It runs alongside wrk, which
// does not check bodies itself: a script that inspects every answer costs wrk a third of its pipelined rate.
type Sample struct {
	Addr, Path, Header string
	Keys               []Key
	Check              CheckFunc
	Pause              time.Duration // time between two requests
}

// Run reads until ctx is done. It returns the latency of each request; the error is the first wrong answer.
func (s Sample) Run(ctx context.Context, counts *Counts) (latencies []time.Duration, err error) {
	conn, err := wire.Dial(ctx, s.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for i := 0; ctx.Err() == nil; i++ {
		key := s.Keys[i%len(s.Keys)]
		began := time.Now()
		a, err := conn.Get(s.Path+"?id="+key.ID, s.Header)
		latencies = append(latencies, time.Since(began))
		if err != nil {
			return nil, Failed("GET %s%s?id=%s: %v", s.Addr, s.Path, key.ID, err)
		}
		if err := s.Check(key.Rank, a.Status, a.Body); err != nil {
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

// alongside runs sample while work runs. A wrong answer ends both.
func alongside(ctx context.Context, sample, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var wrong error
	wg.Go(func() {
		if wrong = sample(ctx); wrong != nil {
			cancel()
		}
	})
	err := work(ctx)
	cancel()
	wg.Wait()
	if wrong != nil && !errors.Is(wrong, context.Canceled) {
		return wrong
	}
	return err
}
