package lab

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Scan reads all values of a Redis with SCAN and MGET over one connection, discards them and returns their number.
// No reader can take its snapshot faster over one connection.
func Scan(ctx context.Context, addr string) (values int, err error) {
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, PoolSize: 1})
	defer client.Close()
	for cursor := uint64(0); ; {
		keys, next, err := client.Scan(ctx, cursor, "*:p:*", 1000).Result()
		if err != nil {
			return values, fmt.Errorf("scan: %w", err)
		}
		if len(keys) > 0 {
			got, err := client.MGet(ctx, keys...).Result()
			if err != nil {
				return values, fmt.Errorf("read values: %w", err)
			}
			values += len(got)
		}
		if cursor = next; cursor == 0 {
			return values, nil
		}
	}
}
