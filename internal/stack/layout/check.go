package layout

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/stack/state"
)

// CheckTimeout bounds the health check of one process.
const CheckTimeout = 800 * time.Millisecond

// checkClient opens a connection per check, because an old connection to a process that hangs may still work.
var checkClient = &http.Client{
	Timeout:   CheckTimeout,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// checkHTTP returns a check that sends a GET to url. A process that answers 200 is ready, and degraded if the body says
// so or a gateway does not use all its readers. The reasons in any other 200, such as that Redis evicts posts, become
// the note.
func checkHTTP(url string) func(context.Context) state.Health {
	return func(ctx context.Context) state.Health {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return state.Health{Detail: err.Error()}
		}
		res, err := checkClient.Do(req)
		if err != nil {
			return state.Health{Detail: ShortNetError(err)}
		}
		defer res.Body.Close()
		var body struct {
			Status  string   `json:"status"`
			Reasons []string `json:"reasons"`
			Detail  string   `json:"detail"`

			Readers int `json:"readers"` // listed by a gateway
			Ready   int `json:"ready"`   // used by it
		}
		// Without a JSON body, only the status code counts.
		_ = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&body)
		why := strings.Join(body.Reasons, ", ")
		if res.StatusCode == http.StatusOK {
			if body.Status == "degraded" || body.Ready < body.Readers {
				return state.Health{Ready: true, Detail: cmp.Or(why, body.Status)}
			}
			return state.Health{Ready: true, Note: why}
		}
		return state.Health{Detail: cmp.Or(why, body.Detail, body.Status, "/ready answers "+res.Status)}
	}
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
				return state.Health{Detail: ShortNetError(err)}
			}
		}
		return state.Health{Ready: true}
	}
}

// ShortNetError drops the addresses from a network error, for output that shows them already.
func ShortNetError(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset by peer", "timeout", "deadline exceeded"} {
		if strings.Contains(text, known) {
			return strings.Replace(known, "deadline exceeded", "timeout", 1)
		}
	}
	return text
}
