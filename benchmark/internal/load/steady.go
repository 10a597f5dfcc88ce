package load

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// Steady is a load at a constant rate.
type Steady struct {
	Addr, Path  string
	Rate        int // requests a second
	Connections int // at most; a request that finds none free waits, and its waiting counts
	Duration    time.Duration
}

// SteadyResult is what came of a load at a constant rate.
type SteadyResult struct {
	Began     time.Time
	Latencies []time.Duration  // sorted, of answers that came: from when the request was due to its last byte
	Late      []time.Duration  // sorted: how long after it was due a request was sent
	Failed    int              // requests without an answer, or with one that means failure
	Failures  []Failure        // the first of them
	Served    []measure.Served // by whom each was answered, in order of time
	Rate      float64          // requests a second that were really sent
}

// Failure is a request that failed.
type Failure struct {
	At     time.Duration `json:"at"` // since the beginning
	Reason string        `json:"reason"`
}

// Sustained reports whether the requests were sent at the rate that was asked for. If they were
// not, the client or the server is at its end and latencies grow with the length of the run.
func (r *SteadyResult) Sustained(rate int) bool { return r.Rate >= 0.99*float64(rate) }

// schedule is a vegeta.Pacer with a constant rate that keeps the times at which requests are due.
// vegeta measures from when a worker takes a request up: the time that passed until then, because
// all workers waited for answers or the machine was busy, would be left out. This is the way to
// put it back: the n-th request is due at began+n*interval, whatever happened to those before.
type schedule struct {
	interval time.Duration
	limit    uint64        // requests in all
	most     time.Duration // however many that were
	once     sync.Once
	began    time.Time
}

// Pace implements vegeta.Pacer; one goroutine calls it.
func (s *schedule) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	s.once.Do(func() { s.began = time.Now().Add(-elapsed) })
	return time.Duration(hits)*s.interval - elapsed, hits >= s.limit || elapsed >= s.most
}

// Rate implements vegeta.Pacer.
func (s *schedule) Rate(time.Duration) float64 { return float64(time.Second) / float64(s.interval) }

// due returns when the n-th request should have been sent.
func (s *schedule) due(n uint64) time.Time { return s.began.Add(time.Duration(n) * s.interval) }

// Run sends the load until its duration or ctx ends. Every body is checked; an answer that is wrong
// is a *WrongError. Without mayFail any failure is, too; with it failures are counted.
func (l Steady) Run(ctx context.Context, reads *Reads, ranks []int, counts *Counts, mayFail bool) (*SteadyResult, error) {
	pool := &wire.Pool{Addr: l.Addr}
	defer pool.Close()
	// A rate that is not reached needs more time; after twice as much it is known not to be.
	pace := &schedule{interval: time.Second / time.Duration(l.Rate), limit: max(1, uint64(l.Duration.Seconds()*float64(l.Rate))), most: 2 * l.Duration}
	workers := uint64(max(l.Connections, 1))
	attacker := vegeta.NewAttacker(vegeta.Client(&http.Client{Transport: pool}), vegeta.Workers(workers), vegeta.MaxWorkers(workers))
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()

	var mu sync.Mutex
	n := 0
	targeter := func(t *vegeta.Target) error {
		mu.Lock()
		rank := ranks[n%len(ranks)]
		n++
		mu.Unlock()
		t.Method, t.URL = http.MethodGet, "http://"+l.Addr+target(l.Path, rank)
		return nil
	}
	result := &SteadyResult{}
	var failed error
	stop := func(err error) {
		if failed == nil {
			failed = err
			attacker.Stop()
		}
	}
	var end time.Time
	for r := range attacker.Attack(targeter, pace, 0, "") {
		result.Began = pace.began
		due := pace.due(r.Seq)
		result.Late = append(result.Late, max(r.Timestamp.Sub(due), 0))
		if r.Timestamp.After(end) {
			end = r.Timestamp
		}
		counts.Statuses.Add(1)
		switch {
		case r.Code == http.StatusOK || r.Code == http.StatusNotFound: // all posts are there: 404 is an answer, and wrong
			if err := reads.Check(rankOf(r.URL), int(r.Code), r.Body); err != nil {
				stop(err)
				continue
			}
			counts.Bodies.Add(1)
			result.Latencies = append(result.Latencies, r.End().Sub(due))
			result.Served = append(result.Served, measure.Served{At: r.End().Sub(pace.began), By: r.Headers.Get("X-Served-By")})
		default:
			result.fail(r, pace.began)
			if !mayFail {
				stop(Wrong("GET %s: %s", r.URL, r.Error))
			}
		}
	}
	if failed != nil {
		return nil, failed
	}
	if took := end.Sub(pace.began) + pace.interval; len(result.Late) > 0 {
		result.Rate = float64(len(result.Late)) / took.Seconds()
	}
	slices.Sort(result.Latencies)
	slices.Sort(result.Late)
	slices.SortFunc(result.Served, func(a, b measure.Served) int { return int(a.At - b.At) })
	return result, ctx.Err()
}

const keptFailures = 20

func (r *SteadyResult) fail(res *vegeta.Result, began time.Time) {
	r.Failed++
	if len(r.Failures) < keptFailures {
		r.Failures = append(r.Failures, Failure{At: res.End().Sub(began), Reason: res.Error})
	}
}

func rankOf(url string) int {
	_, id, _ := strings.Cut(url, "?id="+workload.MixPrefix)
	rank, _ := strconv.Atoi(id) // it was made by target
	return rank
}
