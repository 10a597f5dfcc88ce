// Package updatecost measures what an update of a post costs each process, and how soon it is visible in comparison with
// Redis without the API.
package updatecost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/propagation"
	"heavy-read-api/internal/workload"
)

// Rates of the loads, a second. The rate of single writes leaves pauses between them, so that none waits for another.
const (
	Updates = 1000 // while CPU time is measured, and beside reads
	Reads   = 2000
	Single  = 200
)

// Config is the processes and the load of a round. The posts of ranks up to Posts have been imported.
type Config struct {
	Upstream *lab.Upstream
	Reader   *lab.Process
	Posts    int
	Duration time.Duration // of each of the four measurements
	Mix      *workload.Mix
	Counts   *load.Counts
	Step     func(name string, takes time.Duration) // called before each measurement
}

// Round is the result of one round. CPU times are per update, without any reads.
type Round struct {
	Redis, Writer, Reader time.Duration
	Delivered             []time.Duration // sorted: from PUBLISH to its delivery, Redis without the API
	Stored                []time.Duration // sorted: the same for a SET and PUBLISH that Redis flushes to the disk
	Visible               []time.Duration // sorted: from POST to the answer of the reader with the post
	Beside                []time.Duration // sorted: from POST to visible at Updates a second beside Reads a second
	BesideRate            float64         // updates a second that were sent meanwhile; fewer than Updates on a busy machine
	Reads                 []time.Duration // sorted: latencies of these reads
}

// Measure runs one round.
func Measure(ctx context.Context, c Config) (*Round, error) {
	r := new(Round)
	for _, m := range []struct {
		name string
		run  func(context.Context, Config) error
	}{
		{fmt.Sprintf("CPU time at %d updates/s", Updates), r.cpu},
		{"Redis without the API, from PUBLISH to delivered", r.floor},
		{"from POST to visible, one write at a time", r.visible},
		{fmt.Sprintf("%d updates/s beside %d reads/s", Updates, Reads), r.beside},
	} {
		c.Step(m.name, c.Duration)
		if err := m.run(ctx, c); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return r, nil
}

// errNoCPU reports a platform that does not report the CPU time of processes.
var errNoCPU = errors.New("this platform does not report the CPU time of processes")

// cpu measures the CPU time of an update in each process. Nothing else runs meanwhile.
func (r *Round) cpu(ctx context.Context, c Config) error {
	processes := []*lab.Process{c.Upstream.Redis, c.Upstream.Writer, c.Reader}
	before := make([]time.Duration, len(processes))
	for i, p := range processes {
		var ok bool
		if before[i], ok = p.OwnCPU(); !ok {
			return errNoCPU
		}
	}
	n, err := lab.Updates{Writer: c.Upstream.Writer.Addr, Posts: c.Posts, Rate: Updates, Duration: c.Duration}.Run(ctx)
	if err != nil {
		return err
	}
	for i, into := range []*time.Duration{&r.Redis, &r.Writer, &r.Reader} {
		after, ok := processes[i].OwnCPU()
		if !ok {
			return errNoCPU
		}
		*into = (after - before[i]) / time.Duration(max(n, 1))
	}
	return nil
}

// floor measures Redis without the API with messages of the mean size of a post.
func (r *Round) floor(ctx context.Context, c Config) error {
	options := &redis.Options{Addr: c.Upstream.Redis.Addr, MaxRetries: -1}
	size := c.Mix.Size(0)
	var err error
	if r.Delivered, err = propagation.Delivered(ctx, options, false, size, Single, c.Duration/2); err != nil {
		return err
	}
	r.Stored, err = propagation.Delivered(ctx, options, true, size, Single, c.Duration/2)
	return err
}

func (c Config) propagation(rate int) propagation.Config {
	return propagation.Config{
		Writer: c.Upstream.Writer.Addr, Readers: []string{c.Reader.Addr},
		Rate: rate, Duration: c.Duration, Mix: c.Mix, Counts: c.Counts,
	}
}

func (r *Round) visible(ctx context.Context, c Config) (err error) {
	r.Visible, err = propagation.Visible(ctx, c.propagation(Single))
	return err
}

// beside measures updates while the reader is asked for posts.
func (r *Round) beside(ctx context.Context, c Config) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	updating := make(chan error, 1)
	go func() {
		m, err := propagation.Measure(ctx, c.propagation(Updates))
		if err == nil {
			r.Beside, r.BesideRate = m.Everywhere, m.Rate
		} else {
			cancel(err)
		}
		updating <- err
	}()
	reads := &load.Reads{Mix: c.Mix, Posts: c.Posts}
	steady := load.Steady{Addr: c.Reader.Addr, Path: "/post", Rate: Reads, Connections: 64, Duration: c.Duration}
	result, err := steady.Run(ctx, reads, reads.Draw(3, 1<<14), c.Counts, false)
	if err != nil {
		cancel(err)
	} else {
		r.Reads = slices.Clone(result.Latencies)
	}
	return errors.Join(err, <-updating)
}
