package fastlane

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"heavy-read-api/internal/httpkit"
)

// withoutLane configures a server whose requests are all answered by net/http.
func withoutLane(c *Config) { c.Path, c.Handler = "", nil }

func withDefaultRefusals(c *Config) { c.Refuse = nil }

type starter func(t testing.TB, options ...func(*Config)) *fixture

// withAndWithoutLane runs test with servers that answer reads in the fast lane, and with servers that answer
// them with net/http, because they have no lane or one for other requests. fast is the lane that answers reads.
func withAndWithoutLane(t *testing.T, test func(t *testing.T, start starter, fast string)) {
	t.Run("with a lane", func(t *testing.T) { test(t, start, "fast") })
	t.Run("without a lane", func(t *testing.T) {
		test(t, func(t testing.TB, options ...func(*Config)) *fixture {
			return start(t, append(options, withoutLane)...)
		}, "std")
	})
	t.Run("with a lane for posts", func(t *testing.T) {
		test(t, func(t testing.TB, options ...func(*Config)) *fixture {
			return start(t, append(options, withPosts)...)
		}, "std")
	})
}

func TestWithoutALaneNetHTTPAnswersEveryRequest(t *testing.T) {
	f := start(t, withoutLane)
	c := dial(t, f)
	r := bufio.NewReader(c)
	send(t, c, get("1")+postRequest+get("2")+"HEAD /post?id=4 HTTP/1.1\r\nHost: a\r\n\r\n")
	expect(t, r, "std", "post 1")
	expect(t, r, "std", "post 3")
	expect(t, r, "std", "post 2")
	if res, err := http.ReadResponse(r, &http.Request{Method: http.MethodHead}); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	send(t, c, get("5")) // on the same connection
	expect(t, r, "std", "post 5")
	f.Drain()
	send(t, c, get("6"))
	expectLast(t, r, "std", "post 6")
}

// Requests that are refused before they reach a handler are answered with problem documents by default.
func TestDefaultRefusals(t *testing.T) {
	check := func(f *fixture, request string, status int, head bool) {
		t.Helper()
		c := dial(t, f)
		defer c.Close()
		go func() { _, _ = io.WriteString(c, request) }()
		r := bufio.NewReader(c)
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%.40q: %v", request, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%.40q: %v", request, err)
		}
		if res.StatusCode != status || !res.Close || res.Header.Get("Content-Type") != httpkit.ProblemType || res.Header.Get("Date") == "" {
			t.Errorf("%.40q: %s, %v; want %d", request, res.Status, res.Header, status)
		}
		if (res.Header.Get("Retry-After") != "") != (status == 503) {
			t.Errorf("%.40q: Retry-After: %q", request, res.Header.Get("Retry-After"))
		}
		var p httpkit.Problem
		if head && len(body) > 0 || !head && (json.Unmarshal(body, &p) != nil || p.Status != status || p.Detail == "") {
			t.Errorf("%.40q: body %q", request, body)
		}
		closed(t, r)
	}
	f, full := start(t, withoutLane, withDefaultRefusals), start(t, withoutLane, withDefaultRefusals, withProbes(1))
	for _, tt := range badRequests {
		check(f, tt.request, tt.status, false)
	}
	check(f, "HEAD / HTTP/1.1\r\n\r\n", 400, true)
	check(f, "GET ?id=1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, false) // matches the shape of an empty path
	full.fill(t)
	check(full, get("1"), 503, false)
	check(full, "HEAD /post?id=1 HTTP/1.1\r\nHost: a\r\n\r\n", 503, true)
}
