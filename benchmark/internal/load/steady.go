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

// Steady describes reads at a constant rate.
type Steady struct {
	Addr, Path  string
	Rate        int // requests per second
	Connections int // maximum; a request that is due while all are in use waits, which is part of its latency
	Duration    time.Duration
}

// SteadyResult is the outcome of reads at a constant rate.
type SteadyResult struct {
	Began     time.Time
	Latencies []time.Duration  // sorted times from when a request was due to the last byte of its answer
	Late      []time.Duration  // sorted times from when a request was due to when it was sent
	Failed    []time.Duration  // sorted times of the failed requests, since Began
	Failures  []Failure        // details of the first failed requests
	Served    []measure.Served // time and reader of each answer, in order of time
	Rate      float64          // requests per second that were sent
}

// Failure is a request that failed.
type Failure struct {
	At     time.Duration `json:"at"` // time since the first request was due
	Reason string        `json:"reason"`
}

// Sustained reports whether the requests were sent at the requested rate. If they were not, the client or the
// server is saturated, and latencies grow with the length of the run.
func (r *SteadyResult) Sustained(rate int) bool { return r.Rate >= 0.99*float64(rate) }

// schedule is a vegeta.Pacer with a constant rate that records when requests are due. vegeta's own latencies
// begin when a worker picks up a request, so they omit the time that it waited for a worker. Here the n-th
// request is due at began+n*interval, whatever happened to earlier ones.
type schedule struct {
	interval time.Duration
	limit    uint64        // total number of requests
	most     time.Duration // longest duration, even when fewer requests were sent
	once     sync.Once
	began    time.Time
}

// Pace implements vegeta.Pacer. It is not called concurrently.
func (s *schedule) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	s.once.Do(func() { s.began = time.Now().Add(-elapsed) })
	return time.Duration(hits)*s.interval - elapsed, hits >= s.limit || elapsed >= s.most
}

// Rate implements vegeta.Pacer.
func (s *schedule) Rate(time.Duration) float64 { return float64(time.Second) / float64(s.interval) }

// due returns when the n-th request should have been sent.
func (s *schedule) due(n uint64) time.Time { return s.began.Add(time.Duration(n) * s.interval) }

// Run sends requests until Duration has passed or ctx ends, and checks every body. A wrong answer is a
// *WrongError. So is a failed request, unless mayFail is set: then failed requests are counted.
func (l Steady) Run(ctx context.Context, reads *Reads, ranks []int, counts *Counts, mayFail bool) (*SteadyResult, error) {
	pool := &wire.Pool{Addr: l.Addr}
	defer pool.Close()
	// A run that falls behind may take up to twice its duration.
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
		case r.Code == http.StatusOK || r.Code == http.StatusNotFound: // every post exists, so a 404 is a wrong answer
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
				stop(Failed("GET %s: %s", r.URL, r.Error))
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
	slices.Sort(result.Failed)
	slices.SortFunc(result.Served, func(a, b measure.Served) int { return int(a.At - b.At) })
	return result, ctx.Err()
}

const keptFailures = 20

func (r *SteadyResult) fail(res *vegeta.Result, began time.Time) {
	r.Failed = append(r.Failed, res.End().Sub(began))
	if len(r.Failures) < keptFailures {
		r.Failures = append(r.Failures, Failure{At: res.End().Sub(began), Reason: res.Error})
	}
}

func target(path string, rank int) string { return path + "?id=" + workload.MixID(rank) }

func rankOf(url string) int {
	_, id, _ := strings.Cut(url, "?id="+workload.MixPrefix)
	rank, _ := strconv.Atoi(id) // target wrote the id
	return rank
}
