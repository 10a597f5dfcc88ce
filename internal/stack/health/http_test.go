package health

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"heavy-read-api/internal/stack/state"
)

// The reasons in a 200 answer become the note, those in a 503 answer the detail.
func TestCheckHTTPPassesReasonsOn(t *testing.T) {
	for _, tt := range []struct {
		code int
		body string
		want state.Health
	}{
		{200, `{"status":"ready"}`, state.Health{Ready: true}},
		{200, `{"status":"ready","reasons":["Redis deletes posts by itself"]}`, state.Health{Ready: true, Note: "Redis deletes posts by itself"}},
		{200, `{"status":"degraded"}`, state.Health{Ready: true, Detail: "degraded"}},
		{503, `{"status":"no writes","reasons":["WRONGPASS invalid username-password pair"]}`, state.Health{Detail: "WRONGPASS invalid username-password pair"}},
		{503, `gone`, state.Health{Detail: "/ready answers 503 Service Unavailable"}},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.code)
			_, _ = io.WriteString(w, tt.body)
		}))
		if got := HTTP(srv.URL)(t.Context()); got != tt.want {
			t.Errorf("%d %s: %+v, want %+v", tt.code, tt.body, got, tt.want)
		}
		srv.Close()
	}
}
