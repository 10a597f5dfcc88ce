package stack

import (
	"encoding/json"
	"fmt"
	"net/http"

	"heavy-read-api/internal/httpkit"
)

// routes returns the control interface with the dashboard beside it. It is for this machine alone:
// see dashboard.LocalOnly.
func (s *stack) routes(web http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", web)
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, r *http.Request) {
		httpkit.JSON(w, http.StatusOK, s.state(r.Context()))
	})
	mux.HandleFunc("POST /api/scale", s.handleScale)
	return mux
}

func (s *stack) handleScale(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Readers int `json:"readers"`
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		httpkit.Problem{Status: http.StatusBadRequest, Detail: `send {"readers":5}: ` + err.Error()}.WriteTo(w)
		return
	}
	if body.Readers < 1 || body.Readers > MaxReaders {
		detail := fmt.Sprintf("%d readers: between 1 and %d can be in rotation", body.Readers, MaxReaders)
		httpkit.Problem{Status: http.StatusBadRequest, Detail: detail, Field: "readers"}.WriteTo(w)
		return
	}
	if err := s.scale(r.Context(), body.Readers); err != nil {
		httpkit.Problem{Status: http.StatusConflict, Detail: err.Error()}.WriteTo(w)
		return
	}
	httpkit.JSON(w, http.StatusOK, s.state(r.Context()))
}
