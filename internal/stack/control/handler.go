// Package control is the control API of a running stack: its handler in the supervisor, and the client that the
// commands use.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/stack/layout"
	"heavy-read-api/internal/stack/state"
)

// Stack is what the API controls. Its methods are safe for concurrent use.
type Stack interface {
	// State checks every process. It is bounded.
	State(ctx context.Context) state.Stack
	// Scale brings the number of readers in rotation to n and blocks until that is done.
	Scale(ctx context.Context, n int) error
}

// Handler returns the API, with web for all other paths. Only this machine may use it: see dashboard.LocalOnly.
func Handler(s Stack, web http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web)
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, r *http.Request) {
		httpkit.JSON(w, http.StatusOK, s.State(r.Context()))
	})
	mux.HandleFunc("POST /api/scale", func(w http.ResponseWriter, r *http.Request) { scale(s, w, r) })
	return mux
}

// scaleRequest is the body of POST /api/scale.
type scaleRequest struct {
	Readers int `json:"readers"`
}

func scale(s Stack, w http.ResponseWriter, r *http.Request) {
	var body scaleRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		httpkit.Problem{Status: http.StatusBadRequest, Detail: `send {"readers":5}: ` + err.Error()}.WriteTo(w)
		return
	}
	if body.Readers < 1 || body.Readers > layout.MaxReaders {
		detail := fmt.Sprintf("%d readers: between 1 and %d can be in rotation", body.Readers, layout.MaxReaders)
		httpkit.Problem{Status: http.StatusBadRequest, Detail: detail, Field: "readers"}.WriteTo(w)
		return
	}
	if err := s.Scale(r.Context(), body.Readers); err != nil {
		httpkit.Problem{Status: http.StatusConflict, Detail: err.Error()}.WriteTo(w)
		return
	}
	httpkit.JSON(w, http.StatusOK, s.State(r.Context()))
}
