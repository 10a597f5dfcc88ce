package propagation

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/benchmark/internal/wire"
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

// Visible measures one write at a time: from the time a POST is sent to the answer of the first reader with the post.
// That reader is asked without pause meanwhile; resolution is the time between the last answer without the post and
// the one with it. Both are sorted. The errors are those of Measure.
func Visible(ctx context.Context, c Config) (times, resolution []time.Duration, err error) {
	defer c.clean()
	writer, err := wire.Dial(ctx, c.Writer)
	if err != nil {
		return nil, nil, err
	}
	defer writer.Close()
	reader, err := wire.Dial(ctx, c.Readers[0])
	if err != nil {
		return nil, nil, err
	}
	defer reader.Close()
	r := &run{Config: c}
	id := probePrefix + "watched-0"
	p, etag, err := r.post(writer, id, 0)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := r.await(reader, p, `"none"`, 0); err != nil {
		return nil, nil, err
	}
	type seen struct {
		at  time.Time
		gap time.Duration
		err error
	}
	version := 0
	err = each(ctx, c.Rate, c.Duration, func() error {
		version++
		p := r.version(id, version)
		visible := make(chan seen, 1)
		go func() {
			at, gap, err := r.await(reader, p, etag, 0)
			visible <- seen{at, gap, err}
		}()
		sent := time.Now()
		_, next, err := r.post(writer, id, version)
		s := <-visible
		if err != nil {
			return err
		}
		if s.err != nil {
			return s.err
		}
		etag = next
		times, resolution = append(times, s.at.Sub(sent)), append(resolution, s.gap)
		return nil
	})
	slices.Sort(times)
	slices.Sort(resolution)
	return times, resolution, err
}
