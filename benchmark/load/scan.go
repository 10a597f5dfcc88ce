package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/redis/go-redis/v9"
)

// scan reads everything that Redis has the plain way, on one connection and keeping nothing: what a
// reader's load is compared with.
func scan(ctx context.Context, out io.Writer, addr string) error {
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, PoolSize: 1})
	defer client.Close()
	began := time.Now()
	values := 0
	for cursor := uint64(0); ; {
		keys, next, err := client.Scan(ctx, cursor, "*:p:*", 1000).Result()
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		if len(keys) > 0 {
			got, err := client.MGet(ctx, keys...).Result()
			if err != nil {
				return fmt.Errorf("read values: %w", err)
			}
			values += len(got)
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	seconds := time.Since(began).Seconds()
	_, err := fmt.Fprintf(out, "%d values in %.2f s: %.0f/s\n", values, seconds, float64(values)/seconds)
	return err
}
