package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

const (
	posts        = 1000             // number of posts that are read and written
	theta        = 0.99             // skew of the ids, as in YCSB
	readWorkers  = 32               // reads in flight at most
	writeWorkers = 4                // writes in flight at most
	readTimeout  = 10 * time.Second // longest wait of a client for one read
	writeTimeout = 5 * time.Second
	seedPause    = 200 * time.Millisecond // between two attempts to import the posts
)

// Counts are the requests that have ended.
type Counts struct {
	Reads    int64 // all reads, the failed ones included
	Answered int64 // reads answered with 5xx
	NoAnswer int64 // reads without a complete answer: refused, reset or timed out
	Missing  int64 // reads answered with 404, although the post exists
	Wrong    int64 // reads with another status, or a body whose hash does not match
	Writes   int64 // all writes, the failed ones included
	Refused  int64 // writes that were not acknowledged
}

// Failed returns the number of reads that failed for the client.
func (c Counts) Failed() int64 { return c.Answered + c.NoAnswer + c.Missing + c.Wrong }

// Generator sends reads and writes. Create it with New.
type Generator struct {
	cfg    Config
	client *http.Client
	// observe, if set, is called with the duration of each read in seconds, by many goroutines.
	observe func(seconds float64)

	reads, answered, noAnswer, missing, wrong, writes, refused atomic.Int64
}

// New returns a generator that sends nothing yet: see Run. cfg is valid.
func New(cfg Config) *Generator {
	transport := &http.Transport{MaxIdleConnsPerHost: readWorkers, DisableCompression: true} // without a proxy
	return &Generator{cfg: cfg, client: &http.Client{Transport: transport}}
}

// Counts returns the number of requests so far.
func (g *Generator) Counts() Counts {
	return Counts{
		Reads: g.reads.Load(), Answered: g.answered.Load(), NoAnswer: g.noAnswer.Load(), Missing: g.missing.Load(),
		Wrong: g.wrong.Load(), Writes: g.writes.Load(), Refused: g.refused.Load(),
	}
}

// Run imports the posts if they are missing, then sends requests until ctx is done. Requests in flight at the end
// are not counted.
func (g *Generator) Run(ctx context.Context) {
	defer g.client.CloseIdleConnections()
	for !g.seeded(ctx) {
		if g.seed(ctx) != nil && !sleep(ctx, seedPause) {
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	seed := uint64(time.Now().UnixNano())
	for i := range readWorkers {
		ids := workload.NewZipf(seed+uint64(i), posts, theta)
		workers.Go(func() { pace(ctx, g.cfg.Reads, readWorkers, i, func() { g.read(ctx, id(ids.Next())) }) })
	}
	if g.cfg.Writes == 0 {
		return
	}
	for i := range writeWorkers {
		ids := workload.NewZipf(seed+uint64(readWorkers+i), posts, theta)
		version := 0
		workers.Go(func() {
			pace(ctx, g.cfg.Writes, writeWorkers, i, func() {
				version++
				g.write(ctx, ids.Next(), fmt.Sprintf("%d-%d", i, version))
			})
		})
	}
}

// pace calls do at the share of one of many workers in a rate per second, until ctx is done. Calls that took too long
// are not made up for: a stalled server must not receive a burst.
func pace(ctx context.Context, rate, workers, worker int, do func()) {
	every := time.Duration(workers) * time.Second / time.Duration(rate)
	next := time.Now().Add(every * time.Duration(worker) / time.Duration(workers))
	for sleep(ctx, time.Until(next)) {
		do()
		next = next.Add(every)
		if now := time.Now(); next.Before(now) {
			next = now
		}
	}
}

// sleep returns false once ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

func id(rank int) string { return fmt.Sprintf("demo-%d", rank) }

func document(rank int, version string) post.Post {
	p := workload.Post(rank, 0)
	p.ID, p.Author, p.Content = id(rank), "load", "Version "+version+" of a post that the load generator writes."
	return p
}

// read sends one read and counts its outcome.
func (g *Generator) read(ctx context.Context, id string) {
	begun := time.Now()
	status, body, err := g.get(ctx, id)
	if ctx.Err() != nil {
		return // the generator stops
	}
	if g.observe != nil {
		g.observe(time.Since(begun).Seconds())
	}
	g.reads.Add(1)
	switch {
	case err != nil:
		g.noAnswer.Add(1)
	case status >= http.StatusInternalServerError:
		g.answered.Add(1)
	case status == http.StatusNotFound:
		g.missing.Add(1)
	case status != http.StatusOK || post.Verify(body) != nil:
		g.wrong.Add(1)
	}
}

func (g *Generator) get(ctx context.Context, id string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return g.do(ctx, http.MethodGet, g.cfg.Gateway+"/post?id="+url.QueryEscape(id), "", nil)
}

// write replaces a post and counts the outcome.
func (g *Generator) write(ctx context.Context, rank int, version string) {
	line, err := workload.AppendLine(nil, document(rank, version))
	status := 0
	if err == nil {
		bound, cancel := context.WithTimeout(ctx, writeTimeout)
		status, _, err = g.do(bound, http.MethodPost, g.cfg.Writer+"/create", "application/json", line)
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	g.writes.Add(1)
	if err != nil || status != http.StatusCreated && status != http.StatusOK {
		g.refused.Add(1)
	}
}

// seeded reports whether the last post can be read.
func (g *Generator) seeded(ctx context.Context) bool {
	status, _, err := g.get(ctx, id(posts-1))
	return err == nil && status == http.StatusOK
}

// seed imports all posts and waits a moment for their arrival in the readers.
func (g *Generator) seed(ctx context.Context) error {
	var lines []byte
	var err error
	for rank := range posts {
		if lines, err = workload.AppendLine(lines, document(rank, "0")); err != nil {
			return err
		}
	}
	bound, cancel := context.WithTimeout(ctx, 10*writeTimeout)
	defer cancel()
	status, _, err := g.do(bound, http.MethodPost, g.cfg.Writer+"/import", "application/x-ndjson", lines)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the writer answers the import with %d", status)
	}
	if err == nil {
		sleep(ctx, seedPause)
	}
	return err
}

// do sends a request and reads the whole answer.
func (g *Generator) do(ctx context.Context, method, url, contentType string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
		if g.cfg.Token != "" {
			req.Header.Set("Authorization", "Bearer "+g.cfg.Token)
		}
	}
	res, err := g.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	return res.StatusCode, answer, err
}
