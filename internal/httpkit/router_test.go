package httpkit

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRouter(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewHTTPMetrics(reg)
	router := NewRouter(m)
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	router.Handle("/read", Read(answer("read")))
	router.Handle("/write", Methods{http.MethodPut: answer("put"), http.MethodDelete: answer("delete")})

	tests := []struct {
		method, target string
		status         int
		body, allow    string
		route          string
	}{
		{"GET", "/read", 200, "read", "", "/read"},
		{"HEAD", "/read?x=1", 200, "read", "", "/read"}, // the recorder keeps the body, which net/http would discard
		{"PUT", "/write", 200, "put", "", "/write"},
		{"DELETE", "/write", 200, "delete", "", "/write"},
		{"POST", "/read", 405, "", "GET, HEAD", "/read"},
		{"GET", "/write", 405, "", "DELETE, PUT", "/write"},
		{"get", "/read", 405, "", "GET, HEAD", "/read"},
		{"GET", "/", 404, "", "", "other"},
		{"GET", "/read/", 404, "", "", "other"},
		{"GET", "//read", 404, "", "", "other"},
		{"GET", "/x/../read", 404, "", "", "other"},
		{"OPTIONS", "*", 404, "", "", "other"},
	}
	for _, tt := range tests {
		before := counted(t, reg, tt.route)
		req := httptest.NewRequest(tt.method, "/", nil)
		req.URL.Path = tt.target
		if tt.target[0] == '/' {
			req = httptest.NewRequest(tt.method, "http://host"+tt.target, nil)
		}
		rec := httptest.NewRecorder()
		router.ServeHTTP(rec, req)
		if rec.Code != tt.status || rec.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, Allow %q, want %d, %q", tt.method, tt.target, rec.Code, rec.Header().Get("Allow"), tt.status, tt.allow)
		}
		if tt.status == 200 {
			if rec.Body.String() != tt.body {
				t.Errorf("%s %s: %q, want %q", tt.method, tt.target, rec.Body, tt.body)
			}
		} else {
			var p Problem
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Status != tt.status || p.Title == "" || p.Detail == "" {
				t.Errorf("%s %s: problem %q, %v", tt.method, tt.target, rec.Body, err)
			}
			if got := rec.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("%s %s: Content-Type %q", tt.method, tt.target, got)
			}
		}
		if got := counted(t, reg, tt.route); got != before+1 {
			t.Errorf("%s %s: counted %v times under %s, want once", tt.method, tt.target, got-before, tt.route)
		}
	}
	// Without the answer to HEAD, whose body is not sent.
	methodNotAllowed := float64(2 * len(Problem{Status: 405, Detail: "this path supports only GET, HEAD"}.Bytes()))
	if got, want := testutil.ToFloat64(m.Bytes.WithLabelValues("/read")), float64(len("read"))+methodNotAllowed; got != want {
		t.Errorf("%v bytes counted, want %v", got, want)
	}
}

// counted returns the number of requests that were counted under route.
func counted(t *testing.T, reg *prometheus.Registry, route string) (total float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "route" && l.GetValue() == route {
					total += m.GetCounter().GetValue()
				}
			}
		}
	}
	return total
}
