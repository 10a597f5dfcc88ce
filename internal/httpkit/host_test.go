package httpkit

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHosts(t *testing.T) {
	router := NewRouter(NewHTTPMetrics(prometheus.NewRegistry()))
	router.Handle("/", Read(func(http.ResponseWriter, *http.Request) {}))
	for host, status := range map[string]int{
		"":                   200,
		"a":                  200,
		"posts.example:9080": 200,
		"a_b-c":              200,
		"a:":                 200,
		"127.0.0.1:80":       200,
		"[::1]":              200,
		"[::1]:8081":         200,
		"[::ffff:10.0.0.1]:": 200,
		"]":                  400,
		"[":                  400,
		"[]":                 400,
		"[::1":               400,
		"::1":                400,
		"[::1]8081":          400,
		"[::1]:80:90":        400,
		"[::1]:8x":           400,
		"[fe80::1%25eth0]":   400,
		"[127.0.0.1]":        400,
		"[a]":                400,
		"a]":                 400,
		"a[b":                400,
		"a:80:90":            400,
		"a:b":                400,
		"a:-1":               400,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("Host %q is answered with %d, want %d", host, w.Code, status)
		}
	}
}
