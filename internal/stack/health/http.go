// Package health checks processes over HTTP.
package health

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"heavy-read-api/internal/stack/state"
)

// Timeout bounds the health check of one process.
const Timeout = 800 * time.Millisecond

// Client opens a connection per request, because an old connection to a process that hangs may still work.
var Client = &http.Client{
	Timeout:   Timeout,
	Transport: &http.Transport{DisableKeepAlives: true},
}

// HTTP returns a check that sends a GET to url. A process that answers 200 is ready, and degraded if the body says
// so or a gateway does not use all its readers. The reasons in any other 200, such as that Redis evicts posts, become
// the note.
func HTTP(url string) func(context.Context) state.Health {
	return func(ctx context.Context) state.Health {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return state.Health{Detail: err.Error()}
		}
		res, err := Client.Do(req)
		if err != nil {
			return state.Health{Detail: ShortError(err)}
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

// ShortError drops the addresses from a network error, for output that shows them already.
func ShortError(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset by peer", "timeout", "deadline exceeded"} {
		if strings.Contains(text, known) {
			return strings.Replace(known, "deadline exceeded", "timeout", 1)
		}
	}
	return text
}
