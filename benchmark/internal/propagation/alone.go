package propagation

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/wire"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/workload"
)

// each calls f at a constant rate for d. A call that is late delays the next ones, so that only one runs at a time and
// none waits for another.
func each(ctx context.Context, rate int, d time.Duration, f func() error) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < d; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// Delivered measures Redis without the API, one message of size bytes at a time: from the time a PUBLISH is sent to its
// delivery to a subscriber. With stored, a SET of the same bytes precedes the PUBLISH in one transaction, so that the time
// includes a flush to the disk where Redis flushes every write. It returns the sorted times.
func Delivered(ctx context.Context, options *redis.Options, stored bool, size, rate int, d time.Duration) ([]time.Duration, error) {
	client := redis.NewClient(options)
	defer client.Close()
	channel, sub, end, err := subscribe(ctx, client)
	if err != nil {
		return nil, err
	}
	defer end()
	publish := func(payload []byte) error {
		if !stored {
			return client.Publish(ctx, channel, payload).Err()
		}
		_, err := client.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			tx.Set(ctx, channel, payload, 0)
			tx.Publish(ctx, channel, payload)
			return nil
		})
		return err
	}
	if stored {
		defer client.Del(context.WithoutCancel(ctx), channel)
	}
	received := make(chan time.Time)
	failed := make(chan error, 1)
	go func() {
		defer close(received)
		for {
			m, err := sub.Receive(ctx)
			if err != nil {
				failed <- fmt.Errorf("receive: %w", err)
				return
			}
			if _, ok := m.(*redis.Message); ok {
				received <- time.Now()
			}
		}
	}()
	payload := make([]byte, max(size, 8))
	var times []time.Duration
	err = each(ctx, rate, d, func() error {
		binary.BigEndian.PutUint64(payload, uint64(len(times)))
		sent := time.Now()
		if err := publish(payload); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		at, ok := <-received
		if !ok {
			return <-failed
		}
		times = append(times, at.Sub(sent))
		return nil
	})
	_ = sub.Close()
	for range received { // until the goroutine has ended
	}
	slices.Sort(times)
	return times, err
}

// Visible measures one write at a time: from the time a POST is sent to the answer of the first reader with the post. The
// read is sent before the POST and waits in the reader for the version of that write, so that polling does not take CPU time
// from the processes that are measured. There must be no other writes. It returns the sorted times. The errors are those of
// Measure.
func Visible(ctx context.Context, c Config) ([]time.Duration, error) {
	defer c.clean()
	writer, err := wire.Dial(ctx, c.Writer)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	reader, err := wire.Dial(ctx, c.Readers[0])
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	r := &run{Config: c}
	id := probePrefix + "watched-0"
	_, first, err := r.post(writer, id, 0)
	if err != nil {
		return nil, err
	}
	token, err := protocol.ParseToken(first.Header.Get("X-Version"))
	if err != nil {
		return nil, load.Wrong("POST /create: %v", err)
	}
	type seen struct {
		at  time.Time
		err error
	}
	var times []time.Duration
	version := 0
	err = each(ctx, c.Rate, c.Duration, func() error {
		version++
		token.Version++
		visible := make(chan seen, 1)
		go func() {
			at, err := r.reach(reader, r.version(id, version), token)
			visible <- seen{at, err}
		}()
		sent := time.Now()
		_, _, err := r.post(writer, id, version)
		s := <-visible
		if err != nil {
			return err
		}
		times = append(times, s.at.Sub(sent))
		return s.err
	})
	slices.Sort(times)
	return times, err
}

// reach asks a reader for the post p of a version that has not been written yet, and checks the answer. It returns the time
// of the answer.
func (r *run) reach(conn *wire.Conn, p post.Post, version protocol.Token) (time.Time, error) {
	for began := time.Now(); ; {
		a, err := conn.Get("/post?id="+p.ID, "X-Min-Version: "+version.String()+"\r\n")
		now := time.Now()
		if err != nil {
			return now, load.Wrong("GET %s from a reader: %v", p.ID, err)
		}
		r.Counts.Statuses.Add(1)
		switch {
		case a.Status == http.StatusOK:
			if err := workload.Check(p, a.Body); err != nil {
				return now, load.Wrong("%v", err)
			}
			r.Counts.Bodies.Add(1)
			return now, nil
		case a.Status != http.StatusServiceUnavailable: // the wait of the reader has ended before the write
			return now, load.Wrong("GET %s returned status %d: %.200q", p.ID, a.Status, a.Body)
		case now.Sub(began) > visibleLimit:
			return now, load.Wrong("%s was written but is not served after %v", p.ID, visibleLimit)
		}
	}
}
