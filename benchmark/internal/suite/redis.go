package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/workload"
)

// redisProbe is the id of a post that is written to detect when writes succeed again.
const redisProbe = workload.MixPrefix + "probe-redis"

// redis kills Redis while reads go through the gateway.
func (s *suite) redis(ctx context.Context) (err error) {
	if _, err := s.runtime.Primary(ctx); !errors.Is(err, target.ErrNoFailover) {
		s.note("Redis was not killed: another server would take over, which the part %s measures.", Failover)
		return nil
	}
	options, err := s.redisOptions(ctx)
	if err != nil {
		s.note("Redis was not killed: %v.", err)
		return nil
	}
	options.DialTimeout, options.ReadTimeout = 500*time.Millisecond, 500*time.Millisecond
	client := redis.NewClient(options)
	defer client.Close()
	if config, err := client.ConfigGet(ctx, "appendonly").Result(); err != nil || config["appendonly"] != "yes" {
		s.note("Redis was not killed: it does not report an append-only file, so its posts might be lost.")
		return nil
	}
	f := &report.RedisFault{Rate: s.rate}
	var killed time.Time
	result, err := s.underReads(ctx, faultLimit, true, func(ctx context.Context) (err error) {
		s.progress.Step("killing Redis", 6*time.Second)
		if err := wait(ctx, s.settle); err != nil {
			return err
		}
		killed = time.Now()
		revive, err := s.runtime.Kill(ctx, target.Redis)
		if err != nil {
			return err
		}
		defer s.restore(ctx, &err, "start Redis again", revive)
		if s.runtime.Name() == target.InDocker { // without Docker a supervisor restarts Redis at once
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
		defer s.restore(ctx, &err, "delete the probe post", func(ctx context.Context) error {
			_, err := s.request(ctx, s.addresses.Writer, func(c *wire.Conn) (wire.Answer, error) {
				return c.Delete("/post?id="+redisProbe, s.addresses.Authorization())
			})
			return err
		})
		err = since(&f.Writes, func() error {
			a, err := s.request(ctx, s.addresses.Writer, func(c *wire.Conn) (wire.Answer, error) {
				return c.Post("/create", s.addresses.Authorization(), body)
			})
			if err == nil && a.Status != http.StatusOK && a.Status != http.StatusCreated {
				err = fmt.Errorf("POST /create returned %d: %.200s", a.Status, a.Body)
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
				a, err := s.request(ctx, addr, func(c *wire.Conn) (wire.Answer, error) { return c.Get("/post?id="+redisProbe, "") })
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
	f.Requests, f.Failed, f.Failures, f.Latency = len(result.Late), len(result.Failed), result.Failures, report.NewQuantiles(result.Latencies)
	at := killed.Sub(result.Began).Seconds()
	f.Timeline = report.NewTimeline(result,
		report.Event{At: at, Name: "Redis is killed", Fault: true}, report.Event{At: at + f.Converged, Name: "all readers are in sync"})
	s.report.Redis = f
	s.progress.Say("%d of %d reads failed; converged %.1f s after the kill", f.Failed, f.Requests, f.Converged)
	return nil
}
