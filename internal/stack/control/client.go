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
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
)

// scaleTimeout is above the time that a scale takes at most.
const scaleTimeout = 40 * time.Second

// client ignores proxies of the environment: the API is on this machine.
var client = &http.Client{Transport: new(http.Transport)}

// State requests the state of the stack whose control API has the given address.
func State(ctx context.Context, addr string) (state.Stack, error) {
	return call(ctx, 2*layout.CheckTimeout, http.MethodGet, "http://"+addr+"/api/state", nil)
}

// Scale brings the number of readers in rotation to n and returns the state after that.
func Scale(ctx context.Context, addr string, n int) (state.Stack, error) {
	body, err := json.Marshal(scaleRequest{Readers: n})
	if err != nil {
		return state.Stack{}, err
	}
	return call(ctx, scaleTimeout, http.MethodPost, "http://"+addr+"/api/scale", body)
}

// call sends a request and returns the state in the answer. A problem document becomes the error.
func call(ctx context.Context, timeout time.Duration, method, url string, request []byte) (state.Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var st state.Stack
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(request))
	if err != nil {
		return st, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return st, err
	}
	defer res.Body.Close()
	body := json.NewDecoder(io.LimitReader(res.Body, 16<<20))
	if res.StatusCode != http.StatusOK {
		var p httpkit.Problem
		if err := body.Decode(&p); err != nil || p.Detail == "" {
			return st, fmt.Errorf("%s answers %s", url, res.Status)
		}
		return st, errors.New(p.Detail)
	}
	if err := body.Decode(&st); err != nil {
		return st, fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return st, nil
}
