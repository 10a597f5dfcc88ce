package layout

import (
	"context"
	"net/http"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
)

// CheckTimeout bounds the health check of one process.
const CheckTimeout = health.Timeout

// checkClient opens a connection per request, because an old connection to a process that hangs may still work.
var checkClient = &http.Client{
	Timeout:   CheckTimeout,
	Transport: &http.Transport{DisableKeepAlives: true},
}

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
