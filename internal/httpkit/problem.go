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
	Title  string `json:"title"`            // by default the status text
	Status int    `json:"status"`           // HTTP status code
	Detail string `json:"detail,omitempty"` // what is wrong and what to change
	Field  string `json:"field,omitempty"`  // member, parameter or header that is wrong
	Limit  int    `json:"limit,omitempty"`  // bound that was exceeded, in bytes
}

// WriteTo answers w with the problem. The bytes depend on the problem alone.
func (p Problem) WriteTo(w http.ResponseWriter) {
	body := p.Bytes()
	h := w.Header()
	h.Set("Content-Type", ProblemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // fails only when the client is gone
}

// Bytes returns the document.
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

// methodNotAllowed answers 405 with the methods that the path has, such as "GET, HEAD".
func methodNotAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	Problem{Status: http.StatusMethodNotAllowed, Detail: "this path answers " + allow}.WriteTo(w)
}

// JSON answers with v as JSON.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Problem{Status: http.StatusInternalServerError, Detail: "encode the answer: " + err.Error()}.WriteTo(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
