package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// checkTimeout bounds one look at one process.
const checkTimeout = 800 * time.Millisecond

// health is what one look at a process found.
type health struct {
	ready  bool
	note   string // what it is at the moment, such as "primary"
	detail string // why not ready, or what is not as it should be although it is ready
}

// checkClient opens a connection per check: a kept one could be the only thing that still works of
// a process that hangs.
var checkClient = &http.Client{
	Timeout:   checkTimeout,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// checkHTTP returns a check that asks for url and is content with 200. What is not as it should be all the
// same stands beside the 200: a gateway says which readers it does not use. What an operator should know of a
// process that does its job, such as that Redis evicts posts, is a note.
func checkHTTP(url string) func(context.Context) health {
	return func(ctx context.Context) health {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return health{detail: err.Error()}
		}
		res, err := checkClient.Do(req)
		if err != nil {
			return health{detail: shortNetError(err)}
		}
		defer res.Body.Close()
		var body struct {
			Status  string   `json:"status"`
			Reasons []string `json:"reasons"`
			Detail  string   `json:"detail"`

			Readers int `json:"readers"` // of a gateway
			Ready   int `json:"ready"`   // those of them that it uses
		}
		// A body that is no JSON tells nothing more than the status code does.
		_ = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&body)
		why := strings.Join(body.Reasons, ", ")
		if res.StatusCode == http.StatusOK {
			if body.Status == "degraded" || body.Ready < body.Readers {
				return health{ready: true, detail: cmp.Or(why, body.Status)}
			}
			return health{ready: true, note: why}
		}
		return health{detail: cmp.Or(why, body.Detail, body.Status, "/ready answers "+res.Status)}
	}
}

// checkRedis returns a check that asks each address for a PONG. A Redis that is not ours and first wants a
// password is alive too: whether the one of the environment is right is for the writer and the readers to say.
func checkRedis(addresses []string, password string) func(context.Context) health {
	return func(ctx context.Context) health {
		for _, a := range addresses {
			c := redisClient(a, password)
			err := c.Ping(ctx).Err()
			c.Close()
			if err != nil && !(password == "" && redis.HasErrorPrefix(err, "NOAUTH")) {
				return health{detail: shortNetError(err)}
			}
		}
		return health{ready: true}
	}
}

// shortNetError drops the addresses from a network error: they stand beside it anyway.
func shortNetError(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset by peer", "timeout", "deadline exceeded"} {
		if strings.Contains(text, known) {
			return strings.Replace(known, "deadline exceeded", "timeout", 1)
		}
	}
	return text
}

// await asks done again and again until it says yes or ctx is done, which makes it return false.
func await(ctx context.Context, done func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
