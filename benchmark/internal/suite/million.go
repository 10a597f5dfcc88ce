package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/internal/workload"
)

const (
	updateRate = 1000            // updates per second, one request each
	bulkRate   = 10_000          // updates per second, as lines of an import
	lagEvery   = time.Second     // interval at which the lag of the reader is sampled
	idleAfter  = 3 * time.Second // time until the reader has freed the buffers of idle connections
	idleLimit  = 8 * time.Second // limit for the memory to settle
)

// million measures one reader with posts of 259 bytes: how fast it starts, how much memory it takes during updates,
// how much CPU time its garbage collector takes, and how much memory idle connections take.
func (s *suite) million(ctx context.Context) error {
	u, ok, err := s.ownUpstream(ctx)
	if !ok || err != nil {
		return err
	}
	m := &report.Million{Posts: s.posts, Imported: s.own.imported, Bytes: len(ownPost(s.posts - 1).Encode(epoch).Body)}
	for i := range s.starts {
		s.progress.Step(fmt.Sprintf("start %d of %d", i+1, s.starts), time.Duration(s.posts)*6*time.Microsecond)
		if err := s.start(ctx, u, m); err != nil {
			return err
		}
	}
	s.progress.Say("start to ready: %s posts/s; a bare SCAN and MGET: %s/s", report.Thousands(report.Median(m.Starts)), report.Thousands(report.Median(m.Scans)))
	if err := s.updated(ctx, u, m); err != nil {
		return err
	}
	s.progress.Say("%.0f MB resident at most, with updates", float64(m.Peak)/1e6)
	if err := s.idleConnections(ctx, u, m); err != nil {
		return err
	}
	s.progress.Say("%d idle connections: %.1f MB", m.Idle, float64(m.IdleBytes)/1e6)
	s.report.Million = m
	return nil
}

// start measures a start of the reader and, for comparison, a scan that discards the values.
func (s *suite) start(ctx context.Context, u *lab.Upstream, m *report.Million) error {
	began := time.Now()
	values, err := lab.Scan(ctx, u.Redis.Addr)
	if err != nil {
		return err
	}
	m.Scans = append(m.Scans, float64(values)/time.Since(began).Seconds())
	began = time.Now()
	reader, err := s.own.lab.Reader(ctx, u, "", false)
	if err != nil {
		return err
	}
	defer reader.Stop()
	m.Starts = append(m.Starts, float64(s.posts)/time.Since(began).Seconds())
	memory, err := reader.Memory()
	m.StartPeak = max(m.StartPeak, memory.Peak)
	return err
}

// updated measures a reader while posts are updated and read, and its metrics are scraped.
func (s *suite) updated(ctx context.Context, u *lab.Upstream, m *report.Million) error {
	reader, err := s.own.lab.Reader(ctx, u, "", true)
	if err != nil {
		return err
	}
	defer reader.Stop()
	hot, err := s.ownWrk(slices.Repeat([]int{hotRank % s.posts}, 16)...)
	if err != nil {
		return err
	}
	defer hot.Close()
	for _, run := range []struct {
		rate int
		bulk bool
	}{{updateRate, false}, {bulkRate, true}} {
		s.progress.Step(fmt.Sprintf("%d updates/s", run.rate), s.updates)
		result, err := s.updateAt(ctx, u, reader, hot, run.rate, run.bulk)
		if err != nil {
			return err
		}
		m.Updates = append(m.Updates, result)
	}
	memory, err := reader.Memory()
	m.Peak = max(m.StartPeak, memory.Peak)
	return err
}

func (s *suite) updateAt(ctx context.Context, u *lab.Upstream, reader *lab.Process, hot *load.Wrk, rate int, bulk bool) (report.Updates, error) {
	before, err := reader.Log()
	if err != nil {
		return report.Updates{}, err
	}
	result := report.Updates{Rate: rate, Bulk: bulk}
	closed := load.Closed{Addr: reader.Addr, Path: "/post", Depth: 1, Connections: 4, Threads: 1, Duration: s.updates}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lagging, stop := context.WithCancel(ctx)
	defer stop()
	lag := make(chan []float64, 1)
	go func() { lag <- watchLag(lagging, u, reader) }()
	updating := make(chan error, 1)
	go func() {
		updates := lab.Updates{Writer: u.Writer.Addr, Posts: s.posts, Rate: rate, Duration: s.updates}
		work := updates.Run
		if bulk {
			work = updates.RunBulk
		}
		n, err := work(ctx)
		if err != nil {
			cancel(err)
		}
		result.Written = n
		updating <- err
	}()
	reads, readErr := hot.Run(ctx, closed)
	updateErr := <-updating
	stop()
	result.Lags = <-lag
	if err := errors.Join(updateErr, readErr); err != nil {
		return result, err
	}
	result.Reads = reads.Rate()
	log, err := reader.Log()
	if err != nil {
		return result, err
	}
	c := lab.ParseCollections(bytes.TrimPrefix(log, before))
	slices.Sort(c.Pauses)
	result.Collections, result.Collector = c.Count, c.CPU.Seconds()/s.updates.Seconds()
	result.Pauses = report.NewQuantiles(c.Pauses)
	return result, nil
}

// watchLag scrapes a reader as Prometheus does, and samples by how many writes the reader is behind Redis. It polls
// the reader first, so a lag includes the writes between the two polls. Samples that fail are skipped.
func watchLag(ctx context.Context, u *lab.Upstream, reader *lab.Process) (lags []float64) {
	client := redis.NewClient(&redis.Options{Addr: u.Redis.Addr, MaxRetries: -1})
	defer client.Close()
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return lags
		case <-tick.C:
		}
		if _, err := target.ProcessUsage(ctx, "http://"+reader.Addr+"/metrics"); err != nil {
			continue
		}
		status, err := target.ReaderStatus(ctx, reader.Addr)
		if err != nil {
			continue
		}
		head, err := client.Get(ctx, "{posts:0}:seq").Uint64()
		if err != nil {
			continue
		}
		lags = append(lags, float64(max(head, status.AppliedVersion)-status.AppliedVersion))
	}
}

// idleConnections measures idle connections in a new reader, whose heap has no free space left by updates.
func (s *suite) idleConnections(ctx context.Context, u *lab.Upstream, m *report.Million) error {
	s.progress.Step(fmt.Sprintf("%d idle connections", s.idle), 3*time.Second)
	reader, err := s.own.lab.Reader(ctx, u, "", false)
	if err != nil {
		return err
	}
	defer reader.Stop()
	before, err := settled(ctx, reader, 0)
	if err != nil {
		return err
	}
	held, err := lab.Idle(ctx, reader.Addr, "/post?id="+workload.ID(hotRank%s.posts), s.idle)
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	if err != nil {
		return err
	}
	after, err := settled(ctx, reader, idleAfter)
	if err != nil {
		return err
	}
	// All of them must still work.
	for _, c := range held {
		a, err := c.Get("/post?id="+workload.ID(hotRank%s.posts), "")
		if err != nil || a.Status != http.StatusOK {
			return load.Wrong("an idle connection received status %d (%v)", a.Status, err)
		}
	}
	m.Idle, m.IdleBytes = s.idle, max(0, after-before)
	return nil
}

// settled waits for at least least, until the memory of a reader has stopped falling, and returns it in bytes.
func settled(ctx context.Context, reader *lab.Process, least time.Duration) (int64, error) {
	last, falling := int64(0), time.Now()
	for began := time.Now(); ; {
		memory, err := reader.Memory()
		if err != nil {
			return 0, err
		}
		if last == 0 || memory.Now < last {
			falling = time.Now()
		}
		last = memory.Now
		if since := time.Since(began); since > idleLimit || since >= least && time.Since(falling) >= time.Second {
			return last, nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}
