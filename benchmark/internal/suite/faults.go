package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/measure"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

const (
	balanceWindow = 250 * time.Millisecond
	readyLimit    = 90 * time.Second // for a reader to load everything, or for Redis to read its file
	spreadLimit   = 20 * time.Second // for the gateway to use a reader that is ready
	faultLimit    = 5 * time.Minute
	undoLimit     = 2 * time.Minute
)

// undone runs undo even when ctx has ended: what the benchmark broke it mends.
func (s *suite) undone(ctx context.Context, err *error, what string, undo func(context.Context) error) {
	if ctx.Err() != nil {
		s.progress.Say("stopping: %s", what)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if e := undo(ctx); e != nil {
		*err = errors.Join(*err, fmt.Errorf("%s: %w", what, e))
	}
}

// wait lets the load go on for a while.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// readers kills a reader and adds one while reads go through the gateway.
func (s *suite) readers(ctx context.Context) (err error) {
	readers, err := s.runtime.Readers(ctx)
	if err != nil {
		return err
	}
	n := len(readers)
	if n < 2 {
		s.note("No reader was killed: with %d behind the gateway there is none to take over.", n)
		return nil
	}
	defer s.undone(ctx, &err, fmt.Sprintf("bring the readers back to %d", n), func(ctx context.Context) error {
		now, err := s.runtime.Readers(ctx)
		if err != nil || len(now) == n {
			return err
		}
		return s.runtime.Scale(ctx, n)
	})
	var killed, added time.Time
	result, err := s.underReads(ctx, faultLimit, true, func(ctx context.Context) (err error) {
		s.progress.Step("killing "+readers[0].Name, 5*time.Second)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		killed = time.Now()
		revive, err := s.runtime.Kill(ctx, readers[0].Name)
		if err != nil {
			return err
		}
		defer s.undone(ctx, &err, "start "+readers[0].Name+" again", revive)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		if err := revive(ctx); err != nil {
			return err
		}
		if err := s.inStep(ctx); err != nil {
			return err
		}
		if err := s.spread(ctx, n); err != nil {
			return err
		}
		s.progress.Step("adding a reader", 5*time.Second)
		added = time.Now()
		if err := s.runtime.Scale(ctx, n+1); err != nil {
			return err
		}
		if err := s.inStep(ctx); err != nil {
			return err
		}
		return s.spread(ctx, n+1)
	})
	if err != nil {
		return err
	}
	s.progress.Step("removing the added reader", 5*time.Second)
	f := &report.ReaderFault{
		Rate: s.rate, Requests: len(result.Late), Failed: result.Failed, Failures: result.Failures, Readers: n,
		KilledAt: killed.Sub(result.Began).Seconds(), AddedAt: added.Sub(result.Began).Seconds(),
		KillBalance: -1, AddBalance: -1, Latency: report.NewQuantiles(result.Latencies),
	}
	addedAt := added.Sub(result.Began)
	var before []measure.Served
	for _, a := range result.Served {
		if a.At < addedAt {
			before = append(before, a)
		}
	}
	if at, ok := measure.Balanced(before, killed.Sub(result.Began), balanceWindow, n); ok {
		f.KillBalance = at.Seconds()
	}
	if at, ok := measure.Balanced(result.Served, addedAt, balanceWindow, n+1); ok {
		f.AddBalance = at.Seconds()
	}
	s.report.Readers = f
	s.progress.Say("%d of %d reads failed; balanced again after %.1f s, with one more after %.1f s", f.Failed, f.Requests, f.KillBalance, f.AddBalance)
	return nil
}

// spread waits until n readers answer through the gateway, and lets the load go on for a while then.
// That they never do is a result, not an error.
func (s *suite) spread(ctx context.Context, n int) error {
	err := poll(ctx, spreadLimit, func() error {
		_, err := s.ask(ctx, s.addresses.Gateway, func(c *wire.Conn) (a wire.Answer, err error) {
			seen := map[string]bool{}
			for range 10 * n {
				if a, err = c.Get("/post?id="+workload.MixID(0), ""); err != nil {
					return a, err
				}
				seen[a.Header.Get("X-Served-By")] = true
			}
			if len(seen) < n {
				err = fmt.Errorf("%d of %d readers answer", len(seen), n)
			}
			return a, err
		})
		return err
	})
	if err != nil {
		s.progress.Say("after %v: %v", spreadLimit, err)
	}
	return wait(ctx, 2*s.settle)
}

// inStep waits until every reader has what Redis has.
func (s *suite) inStep(ctx context.Context) error {
	addrs, err := s.readerAddrs(ctx)
	if err != nil {
		return err
	}
	return target.Await(ctx, readyLimit, addrs...)
}

// redisProbe is written to see when writes get through again.
const redisProbe = workload.MixPrefix + "probe-redis"

// redis kills Redis while reads go through the gateway.
func (s *suite) redis(ctx context.Context) (err error) {
	options, err := s.redisOptions(ctx)
	if err != nil {
		s.note("Redis was not killed: %v.", err)
		return nil
	}
	options.DialTimeout, options.ReadTimeout = 500*time.Millisecond, 500*time.Millisecond
	client := redis.NewClient(options)
	defer client.Close()
	if keeps, err := client.ConfigGet(ctx, "appendonly").Result(); err != nil || keeps["appendonly"] != "yes" {
		s.note("Redis was not killed: it does not say that it keeps an append-only file, so its posts would be gone.")
		return nil
	}
	f := &report.RedisFault{Rate: s.rate}
	result, err := s.underReads(ctx, faultLimit, true, func(ctx context.Context) (err error) {
		s.progress.Step("killing Redis", 6*time.Second)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		killed := time.Now()
		revive, err := s.runtime.Kill(ctx, target.Redis)
		if err != nil {
			return err
		}
		defer s.undone(ctx, &err, "start Redis again", revive)
		if s.runtime.Name() == target.InDocker { // the supervisor of the stack without Docker does not wait
			if err := wait(ctx, s.settle); err != nil {
				return err
			}
		}
		if err := revive(ctx); err != nil {
			return err
		}
		since := func(into *float64, check func() error) error {
			err := poll(ctx, readyLimit, check)
			*into = time.Since(killed).Seconds()
			return err
		}
		if err := since(&f.Down, func() error { return client.Ping(ctx).Err() }); err != nil {
			return fmt.Errorf("wait for Redis: %w", err)
		}
		p := s.mix.Post(0, 1)
		p.ID = redisProbe
		body, err := workload.AppendLine(nil, p)
		if err != nil {
			return err
		}
		defer s.undone(ctx, &err, "delete a probe", func(ctx context.Context) error {
			_, err := s.ask(ctx, s.addresses.Writer, func(c *wire.Conn) (wire.Answer, error) {
				return c.Delete("/post?id="+redisProbe, s.addresses.Authorization())
			})
			return err
		})
		err = since(&f.Writes, func() error {
			a, err := s.ask(ctx, s.addresses.Writer, func(c *wire.Conn) (wire.Answer, error) {
				return c.Post("/create", s.addresses.Authorization(), body)
			})
			if err == nil && a.Status != http.StatusOK && a.Status != http.StatusCreated {
				err = fmt.Errorf("POST /create answers %d: %.200s", a.Status, a.Body)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for writes: %w", err)
		}
		addrs, err := s.readerAddrs(ctx)
		if err != nil {
			return err
		}
		err = since(&f.Converged, func() error {
			for _, addr := range addrs {
				a, err := s.ask(ctx, addr, func(c *wire.Conn) (wire.Answer, error) { return c.Get("/post?id="+redisProbe, "") })
				if err == nil {
					err = workload.Check(p, a.Body)
				}
				if err != nil {
					return err
				}
			}
			return target.Await(ctx, readyLimit, addrs...)
		})
		if err != nil {
			return fmt.Errorf("wait for the readers: %w", err)
		}
		return wait(ctx, s.settle)
	})
	if err != nil {
		return err
	}
	f.Requests, f.Failed, f.Failures, f.Latency = len(result.Late), result.Failed, result.Failures, report.NewQuantiles(result.Latencies)
	s.report.Redis = f
	s.progress.Say("%d of %d reads failed; converged %.1f s after the kill", f.Failed, f.Requests, f.Converged)
	return nil
}

// ask sends one request over a connection of its own.
func (s *suite) ask(ctx context.Context, addr string, send func(*wire.Conn) (wire.Answer, error)) (wire.Answer, error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return wire.Answer{}, err
	}
	defer conn.Close()
	return send(conn)
}

// poll asks check until it has no objection, for limit at most.
func poll(ctx context.Context, limit time.Duration, check func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
