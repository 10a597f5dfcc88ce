package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/health"
	"heavy-read-api/internal/stack/state"
)

const (
	scaleTimeout  = 40 * time.Second // above the time that a scale takes at most
	changeTimeout = 20 * time.Second // above the time that a stop of the load generator takes at most
)

// client ignores proxies of the environment: the API is on this machine.
var client = &http.Client{Transport: new(http.Transport)}

// State requests the state of the stack whose control API has the given address.
func State(ctx context.Context, addr string) (state.Stack, error) {
	return call[state.Stack](ctx, 2*health.Timeout, http.MethodGet, "http://"+addr+"/api/state", nil)
}

// Scale brings the number of readers in rotation to n and returns the state after that.
func Scale(ctx context.Context, addr string, n int) (state.Stack, error) {
	return call[state.Stack](ctx, scaleTimeout, http.MethodPost, "http://"+addr+"/api/scale", scaleRequest{Readers: n})
}

// Fault injects a fault (kill, freeze, cut) into a process.
func Fault(ctx context.Context, addr, fault, process string) error {
	_, err := call[state.Stack](ctx, changeTimeout, http.MethodPost, "http://"+addr+"/api/fault", faultRequest{fault, process})
	return err
}

// Load starts the load generator with rates per second, or stops it if reads is 0.
func Load(ctx context.Context, addr string, reads, writes int) error {
	_, err := call[state.Stack](ctx, changeTimeout, http.MethodPost, "http://"+addr+"/api/load", loadRequest{reads, writes})
	return err
}

// Story is what has happened to the stack.
type Story struct {
	Events []events.Event `json:"events"`
	Totals events.Totals  `json:"totals"`
}

// Events requests what has happened to the stack.
func Events(ctx context.Context, addr string) (Story, error) {
	return call[Story](ctx, changeTimeout, http.MethodGet, "http://"+addr+"/api/events", nil)
}

// call sends a request and returns the answer. A problem document becomes the error.
func call[A any](ctx context.Context, timeout time.Duration, method, url string, request any) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer A
	var content []byte
	if request != nil {
		var err error
		if content, err = json.Marshal(request); err != nil {
			return answer, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	body := json.NewDecoder(io.LimitReader(res.Body, 16<<20))
	if res.StatusCode != http.StatusOK {
		var p httpkit.Problem
		if err := body.Decode(&p); err != nil || p.Detail == "" {
			return answer, fmt.Errorf("%s answers %s", url, res.Status)
		}
		return answer, errors.New(p.Detail)
	}
	if err := body.Decode(&answer); err != nil {
		return answer, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return answer, nil
}
