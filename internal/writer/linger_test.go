package writer

import (
	"errors"
	"io"
	"strings"
	"testing"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

// TestEarlyAnswers sends a large body completely before it reads the answer, which the writer sends without reading the
// body.
func TestEarlyAnswers(t *testing.T) {
	b := redistest.StartEmbedded(t)
	w := start(t, b.Addr(), func(c *Config) { c.Token = "token" })
	large := strings.Repeat("x", 2*post.MaxBody)
	for _, tt := range []struct {
		request string
		header  []string
		status  int
		field   string
	}{
		{"POST /create", nil, 401, "Authorization"},
		{"POST /create", []string{"Authorization: Bearer token"}, 413, ""},
		{"POST /import", []string{"Authorization: Bearer token", "Content-Encoding: gzip"}, 415, "Content-Encoding"},
		{"DELETE /create", nil, 405, ""},
		{"POST /nowhere", nil, 404, ""},
	} {
		s := w.dial(t)
		s.begin(t, tt.request, len(large), tt.header...)
		s.write(t, large)
		wantProblem(t, s.answer(t), tt.status, tt.field)
	}
	// With Expect: 100-continue the client need not send the body.
	s := w.dial(t)
	s.begin(t, "POST /create", len(large), "Expect: 100-continue")
	res := s.answer(t)
	wantProblem(t, res, 401, "Authorization")
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after the answer: %v, want EOF", err)
	}
}
