// Package outage measures how a failover of Redis affects writes: how long no write is acknowledged, how long the
// readers take to be in sync again, and how many acknowledged writes are lost.
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
	// writers is the maximum number of writes in flight. A write that is due while all of them wait for an
	// answer is skipped.
	writers = 16
	// grace is the age of an acknowledged write at which the readers are polled for it: a reader that is in
	// sync has it by then. The measured time until the readers are in sync is too long by up to grace.
	grace = 20 * time.Millisecond
	// pause is the time between two polls of a reader.
	pause = 5 * time.Millisecond
	// busyLimit is the longest time for which a server may answer 503 when a post is read back.
	busyLimit = 5 * time.Second
	// prefix is the prefix of the ids that are written.
	prefix = workload.MixPrefix + "failover-"
)

// Config describes the writes and the servers on which they are checked.
type Config struct {
	Writer  string   // host:port
	Header  string   // header fields of the writes, each line with its "\r\n"
	Readers []string // addresses, host:port; the last one is also used to read from Redis
	Rate    int      // writes per second
	Mix     *workload.Mix
	Counts  *load.Counts
}

// Result is the cost of a failover.
type Result struct {
	Acknowledged int           // acknowledged writes, including those before and after the failover
	Refused      int           // writes that were not acknowledged; they may have been stored
	Lost         int           // acknowledged writes that Redis does not have
	Out          time.Duration // longest time without an acknowledgement that ended after the fault
	InSync       time.Duration // time from the fault until every reader served a write acknowledged after Out
}

// Writes writes posts at a constant rate, each once, and follows them to the readers.
type Writes struct {
	Config
	run  string // part of the ids, unique to this run
	stop context.CancelFunc
	all  sync.WaitGroup
	sent int // number of writes, which are numbered from 0; final after Stop

	mu      sync.Mutex // guards the fields below
	refused int
	acked   []write      // in the order of the acknowledgements
	served  [][]sighting // by reader
	fault   time.Time    // start of the failover
}

// write is an acknowledged write.
type write struct {
	number  int
	version string    // version in the answer
	sent    time.Time // time of the request
	at      time.Time // time of the acknowledgement
}

// sighting is a poll of a reader that found a write.
type sighting struct {
	write write
	at    time.Time
}

// Start starts the writes, which end with Stop or ctx.
func Start(ctx context.Context, c Config) *Writes {
	ctx, stop := context.WithCancel(ctx)
	w := &Writes{Config: c, run: strconv.FormatInt(time.Now().UnixNano(), 36), stop: stop, served: make([][]sighting, len(c.Readers))}
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
			default: // all writers are waiting for an answer
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

// Stop ends the writes, and blocks until the last one is answered.
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

// write sends the writes that are due. It waits for each answer even after ctx has ended, because the outcome of a
// write is unknown until then.
func (w *Writes) write(due <-chan int) {
	c := client{addr: w.Writer}
	defer c.close()
	for number := range due {
		body, err := workload.AppendLine(nil, w.post(number))
		sent := time.Now()
		var a wire.Answer
		if err == nil {
			a, err = c.do(context.Background(), func(c *wire.Conn) (wire.Answer, error) { return c.Post("/create", w.Header, body) })
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
		if a, err := c.do(ctx, w.get("/post", newest.number)); err == nil && a.Status == http.StatusOK {
			w.mu.Lock()
			w.served[reader] = append(w.served[reader], sighting{newest, time.Now()})
			w.mu.Unlock()
		}
	}
}

func (w *Writes) get(path string, number int) func(*wire.Conn) (wire.Answer, error) {
	return func(c *wire.Conn) (wire.Answer, error) { return c.Get(path+"?id="+w.id(number), "") }
}

// newest returns the last write that was acknowledged before the given time.
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

// Fault records that the failover begins now.
func (w *Writes) Fault() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = time.Now()
}

// Recovered returns nil when every reader has served a write that was sent after the given time.
func (w *Writes) Recovered(after time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, sightings := range w.served {
		if len(sightings) == 0 || !sightings[len(sightings)-1].write.sent.After(after) {
			return fmt.Errorf("%s has served no new write", w.Readers[i])
		}
	}
	return nil
}

// Result reads the acknowledged writes back from Redis and from every reader. Call it after Stop, when the
// readers are in sync. A reader that differs from Redis, or a post that differs from what was written, is a
// *load.WrongError.
func (w *Writes) Result(ctx context.Context) (Result, error) {
	r := Result{Acknowledged: len(w.acked), Refused: w.refused}
	ended := w.outage(&r)
	for i, sightings := range w.served {
		first := slices.IndexFunc(sightings, func(s sighting) bool { return !s.write.at.Before(ended) })
		if first < 0 {
			return r, fmt.Errorf("%s has served no write that was acknowledged after the failover", w.Readers[i])
		}
		r.InSync = max(r.InSync, sightings[first].at.Sub(w.fault))
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
			return r, load.Wrong("%s serves %d of %d acknowledged posts, but Redis has %d", addr, len(served), len(w.acked), len(kept))
		}
	}
	return r, nil
}

// outage stores the longest time without an acknowledgement in r.Out and returns its end.
func (w *Writes) outage(r *Result) (ended time.Time) {
	for i := 1; i < len(w.acked); i++ {
		at := w.acked[i].at
		if out := at.Sub(w.acked[i-1].at); out > r.Out && at.After(w.fault) {
			r.Out, ended = out, at
		}
	}
	return ended
}

// readBack returns the writes that a server has.
func (w *Writes) readBack(ctx context.Context, addr, path string, writes []write) (found []write, err error) {
	c := client{addr: addr}
	defer c.close()
	for _, a := range writes {
		answer, err := c.do(ctx, w.get(path, a.number))
		// Redis may still be busy after the failover.
		for began := time.Now(); err == nil && answer.Status == http.StatusServiceUnavailable && time.Since(began) < busyLimit; {
			answer, err = c.do(ctx, w.get(path, a.number))
		}
		switch {
		case err != nil:
			return nil, err
		case answer.Status == http.StatusNotFound:
			w.Counts.Statuses.Add(1)
			continue
		case answer.Status != http.StatusOK:
			return nil, fmt.Errorf("GET %s at %s returned %d: %.200s", path, addr, answer.Status, answer.Body)
		}
		w.Counts.Statuses.Add(1)
		if err := workload.Check(w.post(a.number), answer.Body); err != nil {
			return nil, load.Wrong("%s at %s: %v", path, addr, err)
		}
		if version := answer.Header.Get("X-Version"); version != a.version {
			return nil, load.Wrong("%s at %s: %s has version %s, but was acknowledged as version %s", path, addr, w.id(a.number), version, a.version)
		}
		w.Counts.Bodies.Add(1)
		found = append(found, a)
	}
	return found, nil
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
				a, err := c.do(ctx, func(c *wire.Conn) (wire.Answer, error) { return c.Delete("/post?id="+w.id(number), w.Header) })
				if err == nil && a.Status != http.StatusNoContent && a.Status != http.StatusNotFound {
					err = fmt.Errorf("DELETE %s returned %d: %.200s", w.id(number), a.Status, a.Body)
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

// do sends a request over the connection, which it dials when there is none.
func (c *client) do(ctx context.Context, send func(*wire.Conn) (wire.Answer, error)) (wire.Answer, error) {
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
