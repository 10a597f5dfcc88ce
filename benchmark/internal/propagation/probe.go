// Package propagation measures how long a write takes to be served, as a client sees it: from the time a POST
// was due to the time a reader answers a GET with the new post.
package propagation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

const (
	// maxWatched is the maximum number of writes per second that are followed to the readers. Following a
	// write polls every reader, and the polls must not slow down the readers that are measured.
	maxWatched = 100
	// watchers is the maximum number of writes that are followed at the same time.
	watchers = 8
	// writers is the maximum number of other writes in flight.
	writers = 32
	// pause is the time between two polls of a reader. Timer and scheduling delays add to it; the measured
	// resolution includes them.
	pause = 100 * time.Microsecond
	// visibleLimit is the limit for a write to become visible; exceeding it is a wrong answer.
	visibleLimit = 10 * time.Second
	// overrun is the factor by which a measurement that cannot keep up with its rate may exceed its duration.
	overrun = 1.5
)

// Config describes the writes and the servers of a measurement.
type Config struct {
	Writer   string   // host:port
	Header   string   // header fields of the writes, each line with its "\r\n"
	Readers  []string // addresses, host:port
	Rate     int      // writes per second
	Duration time.Duration
	Mix      *workload.Mix
	Counts   *load.Counts
}

// Result is the outcome of a measurement.
type Result struct {
	Everywhere []time.Duration // sorted times until the last reader served the write
	First      []time.Duration // sorted times until the first reader served the write
	Resolution []time.Duration // sorted times from the last poll without the write to the first poll with it
	Writes     int             // number of writes, including those that were not followed
	Rate       float64         // writes per second that were sent
}

// ErrRefused reports a write that the writer refused with a status of 500 or above.
var ErrRefused = errors.New("the writer refused a write")

// Sustained reports whether the writes were sent at the requested rate.
func (r *Result) Sustained(rate int) bool { return r.Rate >= 0.97*float64(rate) }

// Measure writes posts at a constant rate and follows some of them to the readers. A write that is due while
// all connections are in use is sent late, and the delay is part of its time. The error is ErrRefused when
// the writer refuses a write, and a *load.WrongError when a write does not become visible or is served with
// other content. Measure deletes its posts before it returns.
func Measure(ctx context.Context, c Config) (*Result, error) {
	defer c.clean()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	followed := min(c.Rate, maxWatched)
	r := &run{Config: c, began: time.Now()}
	var wg sync.WaitGroup
	spawn := func(n, rate int, work func(ctx context.Context, id string, due <-chan time.Time) error, name string) {
		if rate == 0 {
			return
		}
		due := make(chan time.Time)
		wg.Go(func() {
			defer close(due)
			r.schedule(ctx, rate, due)
		})
		for i := range n {
			wg.Go(func() {
				if err := work(ctx, fmt.Sprintf("%s%s-%d", probePrefix, name, i), due); err != nil {
					cancel(err)
				}
			})
		}
	}
	spawn(watchers, followed, r.watch, "watched")
	spawn(writers, c.Rate-followed, r.write, "written")
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r.result.Writes = len(r.result.Everywhere) + r.plain
	r.result.Rate = float64(r.result.Writes) / r.last.Sub(r.began).Seconds()
	slices.Sort(r.result.Everywhere)
	slices.Sort(r.result.First)
	slices.Sort(r.result.Resolution)
	return &r.result, nil
}

// probePrefix is the prefix of the ids that Measure writes.
const probePrefix = workload.MixPrefix + "probe-"

type run struct {
	Config
	began time.Time

	mu     sync.Mutex // guards the fields below
	result Result
	plain  int       // writes that were not followed
	last   time.Time // time of the last answer to a write
}

// schedule sends the times at which writes are due. It blocks while all workers are busy; writes that become
// due meanwhile are sent late, not skipped.
func (r *run) schedule(ctx context.Context, rate int, due chan<- time.Time) {
	for n := range int(r.Duration.Seconds() * float64(rate)) {
		if time.Since(r.began).Seconds() > overrun*r.Duration.Seconds() {
			return
		}
		at := r.began.Add(time.Duration(n) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(at)):
		}
		select {
		case <-ctx.Done():
			return
		case due <- at:
		}
	}
}

// write writes new versions of a post without following them.
func (r *run) write(ctx context.Context, id string, due <-chan time.Time) error {
	conn, err := wire.Dial(ctx, r.Writer)
	if err != nil {
		return err
	}
	defer conn.Close()
	version := 0
	for range due {
		version++
		if _, _, err := r.post(conn, id, version); err != nil {
			return err
		}
		r.mu.Lock()
		r.plain++
		r.last = time.Now()
		r.mu.Unlock()
	}
	return nil
}

// version returns a version of a post.
func (r *run) version(id string, version int) post.Post {
	p := r.Mix.Post(version, version)
	p.ID = id
	return p
}

// post writes a version of a post and returns it with the answer.
func (r *run) post(conn *wire.Conn, id string, version int) (post.Post, wire.Answer, error) {
	p := r.version(id, version)
	body, err := workload.AppendLine(nil, p)
	if err != nil {
		return p, wire.Answer{}, err
	}
	a, err := conn.Post("/create", r.Header, body)
	if err != nil {
		return p, wire.Answer{}, load.Wrong("POST /create: %v", err)
	}
	r.Counts.Statuses.Add(1)
	if a.Status >= http.StatusInternalServerError {
		return p, wire.Answer{}, fmt.Errorf("%w: status %d: %.200q", ErrRefused, a.Status, a.Body)
	}
	if a.Status != http.StatusCreated && a.Status != http.StatusOK {
		return p, wire.Answer{}, load.Wrong("POST /create returned status %d: %.200q", a.Status, a.Body)
	}
	return p, a, nil
}

// watch writes new versions of a post, and polls every reader until it serves each of them.
func (r *run) watch(ctx context.Context, id string, due <-chan time.Time) error {
	writer, err := wire.Dial(ctx, r.Writer)
	if err != nil {
		return err
	}
	defer writer.Close()
	readers := make([]*wire.Conn, len(r.Readers))
	for i, addr := range r.Readers {
		if readers[i], err = wire.Dial(ctx, addr); err != nil {
			return err
		}
		defer readers[i].Close()
	}
	// The first version is written before the measurement. From then on, a reader that does not have the
	// newest version answers 304 to the ETag of the previous one.
	p, first, err := r.post(writer, id, 0)
	if err != nil {
		return err
	}
	etag := first.Header.Get("Etag")
	for _, conn := range readers {
		if _, _, err := r.await(conn, p, `"none"`); err != nil {
			return err
		}
	}
	version := 0
	for at := range due {
		version++
		p := r.version(id, version)
		seen := make([]time.Time, len(readers))
		gaps := make([]time.Duration, len(readers))
		errs := make([]error, len(readers))
		var wg sync.WaitGroup
		for i, conn := range readers {
			wg.Go(func() { seen[i], gaps[i], errs[i] = r.await(conn, p, etag) })
		}
		_, next, err := r.post(writer, id, version)
		wg.Wait()
		for _, e := range append(errs, err) {
			if e != nil {
				return e
			}
		}
		etag = next.Header.Get("Etag")
		r.mu.Lock()
		r.result.Everywhere = append(r.result.Everywhere, slices.MaxFunc(seen, time.Time.Compare).Sub(at))
		r.result.First = append(r.result.First, slices.MinFunc(seen, time.Time.Compare).Sub(at))
		r.result.Resolution = append(r.result.Resolution, gaps...)
		r.last = time.Now()
		r.mu.Unlock()
	}
	return nil
}

// await polls a reader for a post, with a pause between two polls, until its ETag differs from etag, and checks the
// new post. It returns the time of the answer, and the time since the last poll without the new post.
func (r *run) await(conn *wire.Conn, p post.Post, etag string) (seen time.Time, gap time.Duration, err error) {
	began := time.Now()
	for asked := began; ; time.Sleep(pause) {
		before := asked
		asked = time.Now()
		a, err := conn.Get("/post?id="+p.ID, "If-None-Match: "+etag+"\r\n")
		if err != nil {
			return seen, gap, load.Wrong("GET %s from a reader: %v", p.ID, err)
		}
		now := time.Now()
		r.Counts.Statuses.Add(1)
		switch {
		case a.Status == http.StatusOK:
			if err := workload.Check(p, a.Body); err != nil {
				return seen, gap, load.Wrong("%v", err)
			}
			r.Counts.Bodies.Add(1)
			return now, now.Sub(before), nil
		case a.Status != http.StatusNotModified && a.Status != http.StatusNotFound:
			return seen, gap, load.Wrong("GET %s returned status %d: %.200q", p.ID, a.Status, a.Body)
		case now.Sub(began) > visibleLimit:
			return seen, gap, load.Wrong("%s was written but is not served after %v", p.ID, visibleLimit)
		}
	}
}

// clean deletes the posts that were written, even when the measurement was stopped.
func (c Config) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), wire.Timeout)
	defer cancel()
	conn, err := wire.Dial(ctx, c.Writer)
	if err != nil {
		return // the measurement failed with the same error
	}
	defer conn.Close()
	for name, n := range map[string]int{"watched": watchers, "written": writers} {
		for i := range n {
			if _, err := conn.Delete(fmt.Sprintf("/post?id=%s%s-%d", probePrefix, name, i), c.Header); err != nil {
				return
			}
		}
	}
}
