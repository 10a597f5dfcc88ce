package layout

import (
	"context"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
)

// checkRedis returns a check that pings each address. Without a password, a server that demands one counts as
// ready: writer and readers, which have the password of the environment, report whether it is right.
func checkRedis(addresses []string, password string) func(context.Context) state.Health {
	return func(ctx context.Context) state.Health {
		for _, a := range addresses {
			c := redisClient(a, password)
			err := c.Ping(ctx).Err()
			c.Close()
			if err != nil && !(password == "" && redis.HasErrorPrefix(err, "NOAUTH")) {
				return state.Health{Detail: health.ShortError(err)}
			}
		}
		return state.Health{Ready: true}
	}
}
