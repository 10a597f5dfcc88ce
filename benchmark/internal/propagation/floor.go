package propagation

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Floor measures Redis Pub/Sub without the stack, with messages of size bytes: the time from when a PUBLISH
// was due until a subscriber received the message. Nothing that uses Redis Pub/Sub can be faster. The times
// are sorted.
func Floor(ctx context.Context, options *redis.Options, size, rate int, duration time.Duration) ([]time.Duration, error) {
	client := redis.NewClient(options)
	defer client.Close()
	channel, sub, end, err := subscribe(ctx, client)
	if err != nil {
		return nil, err
	}
	defer end()
	count := int(duration.Seconds() * float64(rate))
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		payload := make([]byte, max(size, 8))
		for n := range count {
			due := time.Duration(n) * time.Second / time.Duration(rate)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(began.Add(due))):
			}
			binary.BigEndian.PutUint64(payload, uint64(due))
			if err := client.Publish(ctx, channel, payload).Err(); err != nil {
				failed <- fmt.Errorf("publish: %w", err)
				_ = sub.Close()
				return
			}
		}
	}()
	times := make([]time.Duration, 0, count)
	for len(times) < count && err == nil {
		var m any
		m, err = sub.Receive(ctx)
		if message, ok := m.(*redis.Message); ok {
			due := time.Duration(binary.BigEndian.Uint64([]byte(message.Payload)))
			times = append(times, time.Since(began)-due)
		}
	}
	if publishErr := <-failed; publishErr != nil {
		err = publishErr
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(times)
	return times, nil
}

// subscribe subscribes to a channel that has no other subscribers. The subscription is closed by end, or when ctx is done,
// which unblocks Receive.
func subscribe(ctx context.Context, client *redis.Client) (channel string, sub *redis.PubSub, end func(), err error) {
	channel = fmt.Sprintf("benchmark-floor-%d", time.Now().UnixNano())
	sub = client.Subscribe(ctx, channel)
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	end = func() {
		stop()
		_ = sub.Close()
	}
	if _, err := sub.Receive(ctx); err != nil {
		end()
		return "", nil, nil, fmt.Errorf("subscribe: %w", err)
	}
	return channel, sub, end, nil
}
