// Package outage measures how a failover of Redis affects writes: how long none was acknowledged, how long the
// readers took to follow, and how many acknowledged writes were lost.
package outage

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

const (
	// writers is the largest number of writes in flight. A write that is due while all of them wait for an
	// answer is skipped.
	writers = 16
	// grace is the age of an acknowledgement at which a reader is asked for the post: a reader that is in
	// step has the post by then. The measured time until the readers are in step is too long by up to grace.
	grace = 20 * time.Millisecond
	// pause is the time between two polls of a reader.
	pause = 5 * time.Millisecond
	// patience is the longest time for which a server may answer 503 when a post is read back.
	patience = 5 * time.Second
	// prefix begins the ids of the posts that are written here.
	prefix = workload.MixPrefix + "failover-"
)

// Config is the writes and the servers they are checked on.
type Config struct {
	Writer  string   // host:port
	Header  string   // header fields of the writes, each line with its "\r\n"
	Readers []string // host:port of each; the last one is also used to read from Redis
	Rate    int      // writes a second
	Mix     *workload.Mix
	Counts  *load.Counts
}

// Result is the cost of a failover.
type Result struct {
	Acknowledged int           // writes, before and after the failover too
	Refused      int           // writes with another answer or none; they may have been stored
	Lost         int           // acknowledged writes that Redis does not have
	Out          time.Duration // longest time without an acknowledgement that ended after the fault
	InStep       time.Duration // time from the fault until every reader served a write acknowledged after Out
}

// Writes are posts that are written at a constant rate, each once, and followed to the readers.
type Writes struct {
	Config
	run  string // part of the ids, unique to this run
	stop context.CancelFunc
	all  sync.WaitGroup
	sent int // writes, which are numbered from 0; complete after Stop

	mu      sync.Mutex // guards the fields below
	refused int
	acked   []write   // in the order of the acknowledgements
	served  [][]sight // by reader
	fault   time.Time // when the failover began
}

// write is an acknowledged write.
type write struct {
	number   int
	version  string    // version in the answer
	sent, at time.Time // at: of the acknowledgement
}

// sight is a poll of a reader that found a write.
type sight struct {
	write write
	at    time.Time
}

// Start writes until Stop or the end of ctx.
func Start(ctx context.Context, c Config) *Writes {
	ctx, stop := context.WithCancel(ctx)
	w := &Writes{Config: c, run: strconv.FormatInt(time.Now().UnixNano(), 36), stop: stop, served: make([][]sight, len(c.Readers))}
	due := make(chan int)
	w.all.Go(func() {
		defer close(due)
		tick := time.NewTicker(time.Second / time.Duration(c.Rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case due <- w.sent:
				w.sent++
			default: // all writers wait for an answer
			}
		}
	})
	for range writers {
		w.all.Go(func() { w.write(due) })
	}
	for i := range c.Readers {
		w.all.Go(func() { w.follow(ctx, i) })
	}
	return w
}

// Stop ends the writing, and blocks until the last write is answered.
func (w *Writes) Stop() {
	w.stop()
	w.all.Wait()
}

// post returns the post of a write.
func (w *Writes) post(number int) post.Post {
	p := w.Mix.Post(number, 1)
	p.ID = w.id(number)
	return p
}

func (w *Writes) id(number int) string { return fmt.Sprint(prefix, w.run, "-", number) }

// write sends the writes that are due. It awaits each answer even after ctx has ended, because the outcome of a
// write is unknown until then.
func (w *Writes) write(due <-chan int) {
	c := client{addr: w.Writer}
	defer c.close()
	for number := range due {
		body, err := workload.AppendLine(nil, w.post(number))
		sent := time.Now()
		var a wire.Answer
		if err == nil {
			a, err = c.ask(context.Background(), func(c *wire.Conn) (wire.Answer, error) { return c.Post("/create", w.Header, body) })
		}
		w.mu.Lock()
		if err == nil && a.Status == http.StatusCreated {
			w.acked = append(w.acked, write{number, a.Header.Get("X-Version"), sent, time.Now()})
		} else {
			w.refused++
		}
		w.mu.Unlock()
	}
}

// follow polls a reader for the newest write.
func (w *Writes) follow(ctx context.Context, reader int) {
	c := client{addr: w.Readers[reader]}
	defer c.close()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		newest, ok := w.newest(time.Now().Add(-grace))
		if !ok {
			continue
		}
		if a, err := c.ask(ctx, w.get("/post", newest.number)); err == nil && a.Status == http.StatusOK {
			w.mu.Lock()
			w.served[reader] = append(w.served[reader], sight{newest, time.Now()})
			w.mu.Unlock()
		}
	}
}

func (w *Writes) get(path string, number int) func(*wire.Conn) (wire.Answer, error) {
	return func(c *wire.Conn) (wire.Answer, error) { return c.Get(path+"?id="+w.id(number), "") }
}

// newest returns the last write that was acknowledged before a time.
func (w *Writes) newest(before time.Time) (write, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range slices.Backward(w.acked) {
		if a.at.Before(before) {
			return a, true
		}
	}
	return write{}, false
}

// Fault marks the beginning of the failover.
func (w *Writes) Fault() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = time.Now()
}

// Recovered returns nil when every reader has served a write that was sent after a time.
func (w *Writes) Recovered(after time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, sights := range w.served {
		if len(sights) == 0 || !sights[len(sights)-1].write.sent.After(after) {
			return fmt.Errorf("%s has served no new write", w.Readers[i])
		}
	}
	return nil
}

// Result reads the acknowledged writes back from Redis and from every reader. Call it after Stop, when the
// readers are in step. A reader that differs from Redis, or a post that differs from what was written, is a
// *load.WrongError.
func (w *Writes) Result(ctx context.Context) (Result, error) {
	r := Result{Acknowledged: len(w.acked), Refused: w.refused}
	ended := w.outage(&r)
	for i, sights := range w.served {
		first := slices.IndexFunc(sights, func(s sight) bool { return !s.write.at.Before(ended) })
		if first < 0 {
			return r, fmt.Errorf("%s has served no write that was acknowledged after the failover", w.Readers[i])
		}
		r.InStep = max(r.InStep, sights[first].at.Sub(w.fault))
	}
	last := w.Readers[len(w.Readers)-1]
	kept, err := w.readBack(ctx, last, "/post-redis", w.acked)
	if err != nil {
		return r, err
	}
	r.Lost = len(w.acked) - len(kept)
	for _, addr := range w.Readers {
		served, err := w.readBack(ctx, addr, "/post", w.acked)
		if err != nil {
			return r, err
		}
		if !slices.Equal(served, kept) {
			return r, load.Wrong("%s serves %d of %d acknowledged posts, and Redis has %d", addr, len(served), len(w.acked), len(kept))
		}
	}
	return r, nil
}

// outage finds the longest time without an acknowledgement, and returns its end.
func (w *Writes) outage(r *Result) (ended time.Time) {
	for i := 1; i < len(w.acked); i++ {
		at := w.acked[i].at
		if out := at.Sub(w.acked[i-1].at); out > r.Out && at.After(w.fault) {
			r.Out, ended = out, at
		}
	}
	return ended
}

// readBack returns those of the writes that a server has.
func (w *Writes) readBack(ctx context.Context, addr, path string, writes []write) (there []write, err error) {
	c := client{addr: addr}
	defer c.close()
	for _, a := range writes {
		answer, err := c.ask(ctx, w.get(path, a.number))
		// Redis may still be busy after the failover.
		for begun := time.Now(); err == nil && answer.Status == http.StatusServiceUnavailable && time.Since(begun) < patience; {
			answer, err = c.ask(ctx, w.get(path, a.number))
		}
		switch {
		case err != nil:
			return nil, err
		case answer.Status == http.StatusNotFound:
			w.Counts.Statuses.Add(1)
			continue
		case answer.Status != http.StatusOK:
			return nil, fmt.Errorf("GET %s at %s answers %d: %.200s", path, addr, answer.Status, answer.Body)
		}
		w.Counts.Statuses.Add(1)
		if err := workload.Check(w.post(a.number), answer.Body); err != nil {
			return nil, load.Wrong("%s at %s: %v", path, addr, err)
		}
		if version := answer.Header.Get("X-Version"); version != a.version {
			return nil, load.Wrong("%s at %s: %s has version %s, and was acknowledged as version %s", path, addr, w.id(a.number), version, a.version)
		}
		w.Counts.Bodies.Add(1)
		there = append(there, a)
	}
	return there, nil
}

// Clean deletes the posts that were written. Call it after Stop.
func (w *Writes) Clean(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for first := range writers {
		all.Go(func() {
			c := client{addr: w.Writer}
			defer c.close()
			for number := first; number < w.sent && ctx.Err() == nil; number += writers {
				a, err := c.ask(ctx, func(c *wire.Conn) (wire.Answer, error) { return c.Delete("/post?id="+w.id(number), w.Header) })
				if err == nil && a.Status != http.StatusNoContent && a.Status != http.StatusNotFound {
					err = fmt.Errorf("DELETE %s answers %d: %.200s", w.id(number), a.Status, a.Body)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// client is a connection that is dialed on demand. It is not safe for concurrent use.
type client struct {
	addr string
	conn *wire.Conn
}

func (c *client) ask(ctx context.Context, send func(*wire.Conn) (wire.Answer, error)) (wire.Answer, error) {
	if c.conn == nil {
		conn, err := wire.Dial(ctx, c.addr)
		if err != nil {
			return wire.Answer{}, err
		}
		c.conn = conn
	}
	a, err := send(c.conn)
	if err != nil {
		c.conn = nil // closed by wire
	}
	return a, err
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}
