package httpkit

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// Problem is an error answer in the format of RFC 9457 (application/problem+json).
type Problem struct {
	Title  string `json:"title"`            // summary; the status text by default
	Status int    `json:"status"`           // HTTP status code
	Detail string `json:"detail,omitempty"` // description of the problem and how to solve it
	Field  string `json:"field,omitempty"`  // invalid member, parameter or header
	Limit  int    `json:"limit,omitempty"`  // bound that was exceeded, in bytes
}

// WriteTo writes the problem as the answer. Equal problems have equal bytes.
func (p Problem) WriteTo(w http.ResponseWriter) {
	body := p.Bytes()
	h := w.Header()
	h.Set("Content-Type", ProblemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // fails only if the client is gone
}

// Bytes returns the problem as JSON.
func (p Problem) Bytes() []byte {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // cannot happen: strings and numbers always marshal
	}
	return append(body, '\n')
}

// JSON writes v as the answer, in JSON.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Problem{Status: http.StatusInternalServerError, Detail: "cannot encode the answer: " + err.Error()}.WriteTo(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
