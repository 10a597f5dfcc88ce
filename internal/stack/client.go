package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"heavy-read-api/internal/httpkit"
)

// getState asks the control interface at an address for the state.
func getState(ctx context.Context, control string) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*checkTimeout)
	defer cancel()
	var st State
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+control+"/api/state", nil)
	if err != nil {
		return st, err
	}
	err = call(req, &st)
	return st, err
}

// call does the request and decodes its answer into v; a problem document becomes the error.
func call(req *http.Request, v any) error {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body := json.NewDecoder(io.LimitReader(res.Body, 16<<20))
	if res.StatusCode != http.StatusOK {
		var p httpkit.Problem
		if err := body.Decode(&p); err != nil || p.Detail == "" {
			return fmt.Errorf("%s answers %s", req.URL, res.Status)
		}
		return errors.New(p.Detail)
	}
	if err := body.Decode(v); err != nil {
		return fmt.Errorf("read the answer of %s: %w", req.URL, err)
	}
	return nil
}
