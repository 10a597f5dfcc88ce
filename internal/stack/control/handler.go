// Package control is the control API of a running stack: its handler in the supervisor, and the client that the
// commands use.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/load"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
)

// Stack is what the API controls. Its methods are safe for concurrent use.
type Stack interface {
	// State checks every process. It is bounded.
	State(ctx context.Context) state.Stack
	// Scale brings the number of readers in rotation to n and blocks until that is done.
	Scale(ctx context.Context, n int) error
	// Fault injects a fault (kill, freeze, cut) into a process. It does not wait for the outcome.
	Fault(ctx context.Context, kind, process string) error
	// Load starts the load generator with rates per second, or stops it if reads is 0.
	Load(ctx context.Context, reads, writes int) error
}

// Handler returns the API, with web for all other paths. Only this machine may use it (see dashboard.LocalOnly), and only
// the user of the stack may change it.
func Handler(s Stack, web http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web)
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, r *http.Request) {
		httpkit.JSON(w, http.StatusOK, s.State(r.Context()))
	})
	change(mux, s, "/api/scale", `{"readers":5}`, func(ctx context.Context, body scaleRequest) error {
		return s.Scale(ctx, body.Readers)
	})
	change(mux, s, "/api/fault", `{"fault":"kill","process":"reader-1"}`, func(ctx context.Context, body faultRequest) error {
		return s.Fault(ctx, body.Fault, body.Process)
	})
	change(mux, s, "/api/load", `{"reads":400,"writes":10}`, func(ctx context.Context, body loadRequest) error {
		return s.Load(ctx, body.Reads, body.Writes)
	})
	return mux
}

// request is the body of a request that changes the stack.
type request interface {
	// check returns the member that is out of range and the reason, or "" twice.
	check() (field, detail string)
}

// scaleRequest is the body of POST /api/scale.
type scaleRequest struct {
	Readers int `json:"readers"`
}

func (r scaleRequest) check() (field, detail string) {
	if r.Readers < 1 || r.Readers > layout.MaxReaders {
		return "readers", fmt.Sprintf("%d readers: between 1 and %d can be in rotation", r.Readers, layout.MaxReaders)
	}
	return "", ""
}

// faultRequest is the body of POST /api/fault.
type faultRequest struct {
	Fault   string `json:"fault"` // kill, freeze or cut
	Process string `json:"process"`
}

func (r faultRequest) check() (field, detail string) { return "", "" } // the stack knows its faults and processes

// loadRequest is the body of POST /api/load. Without reads the load stops.
type loadRequest struct {
	Reads  int `json:"reads"`  // per second
	Writes int `json:"writes"` // per second
}

func (r loadRequest) check() (field, detail string) {
	switch {
	case r.Reads < 0 || r.Reads > load.MaxReads:
		return "reads", fmt.Sprintf("%d reads per second: use 1 to %d, or 0 to stop", r.Reads, load.MaxReads)
	case r.Writes < 0 || r.Writes > load.MaxWrites:
		return "writes", fmt.Sprintf("%d writes per second: use 0 to %d", r.Writes, load.MaxWrites)
	}
	return "", ""
}

// change registers a POST that changes the stack and answers with the state after that.
func change[R request](mux *http.ServeMux, s Stack, path, example string, do func(context.Context, R) error) {
	mux.Handle("POST "+path, ownerOnly(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body R
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&body); err != nil {
			httpkit.Problem{Status: http.StatusBadRequest, Detail: "send " + example + ": " + err.Error()}.WriteTo(w)
			return
		}
		if field, detail := body.check(); detail != "" {
			httpkit.Problem{Status: http.StatusBadRequest, Detail: detail, Field: field}.WriteTo(w)
			return
		}
		if err := do(r.Context(), body); err != nil {
			httpkit.Problem{Status: http.StatusConflict, Detail: err.Error()}.WriteTo(w)
			return
		}
		httpkit.JSON(w, http.StatusOK, s.State(r.Context()))
	})))
}
