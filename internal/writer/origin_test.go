package writer

import (
	"fmt"
	"testing"

	"heavy-read-api/internal/test/redistest"
)

// writingRequests has one request for each route that writes.
var writingRequests = []struct{ method, target, body string }{
	{"POST", "/create", `{"id":"a","title":"t"}`},
	{"POST", "/import", `{"id":"a","title":"t"}`},
	{"PUT", "/post?id=a", `{"title":"t"}`},
	{"DELETE", "/post?id=a", ""},
}

func TestCrossOriginWritesAreRefused(t *testing.T) {
	redis := redistest.StartEmbedded(t)
	for _, token := range []string{"", "secret"} {
		w := start(t, redis.Addr(), func(c *Config) { c.Token = token })
		host := w.URL[len("http://"):]
		for _, r := range writingRequests {
			for _, tt := range []struct {
				header []string
				passes bool
			}{
				{nil, true},
				{[]string{"Origin", "https://evil.example"}, false},
				{[]string{"Origin", "null"}, false},
				{[]string{"Origin", "http://127.0.0.1:1"}, false},
				{[]string{"Origin", "http://" + host}, true},
				{[]string{"Sec-Fetch-Site", "cross-site"}, false},
				{[]string{"Sec-Fetch-Site", "same-site"}, false}, // another port of this machine
				{[]string{"Sec-Fetch-Site", "same-origin"}, true},
			} {
				header := append([]string{"Authorization", "Bearer " + token}, tt.header...)
				res := w.do(t, r.method, r.target, r.body, header...)
				if refused := res.status == 403; refused == tt.passes {
					t.Errorf("%s %s with %q: %d %s", r.method, r.target, tt.header, res.status, res.body)
				}
				if !tt.passes {
					wantProblem(t, res, 403, "Origin")
				}
			}
		}
	}
}

// With DNS rebinding, Host is the name of the attacking page. It is refused unless writes require the token, which the
// page does not have.
func TestDNSRebindingIsRefused(t *testing.T) {
	redis := redistest.StartEmbedded(t)
	open := start(t, redis.Addr(), func(c *Config) { c.Hosts = []string{"Posts.Example.org."} })
	locked := start(t, redis.Addr(), func(c *Config) { c.Token = "secret" })
	for _, r := range writingRequests {
		for host, passes := range map[string]bool{
			"127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "[::1]": true, "192.168.1.20:8080": true,
			"localhost": true, "LOCALHOST:8080": true, "localhost.": true, "posts.localhost:8080": true,
			"writer": true, "writer:8080": true, "posts.example.org": true, "posts.example.org:443": true,
			"rebound.evil.example": false, "rebound.evil.example:8080": false, "127.0.0.1.evil.example": false,
			"evil.": false, "evil.:8080": false, "evil.localhost.example": false, "example.org": false, "a.posts.example.org": false,
		} {
			res := open.do(t, r.method, r.target, r.body, "Host", host)
			if refused := res.status == 421; refused == passes {
				t.Errorf("%s %s at %s: %d %s", r.method, r.target, host, res.status, res.body)
			}
			if !passes {
				wantProblem(t, res, 421, "Host")
			}
			if res := locked.do(t, r.method, r.target, r.body, "Host", host, "Authorization", "Bearer secret"); res.status >= 400 && res.status != 404 {
				t.Errorf("%s %s at %s with the token: %d %s", r.method, r.target, host, res.status, res.body)
			}
		}
	}
}

// Browsers let a page send bodies without a type (a Blob, sendBeacon) or with a form's type to any host.
func TestBodiesRequireAType(t *testing.T) {
	w := start(t, redistest.StartEmbedded(t).Addr())
	for _, r := range writingRequests {
		if r.body == "" {
			continue
		}
		for _, media := range []string{"", "text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"} {
			res := w.do(t, r.method, r.target, r.body, "Content-Type", media)
			t.Run(fmt.Sprint(r.target, " ", media), func(t *testing.T) { wantProblem(t, res, 415, "Content-Type") })
		}
	}
}

func TestAllowedHosts(t *testing.T) {
	for text, ok := range map[string]bool{
		"posts.example.org": true, "a.example.org, b.example.org": true,
		"https://posts.example.org": false, "posts.example.org:80": false, "*.example.org": false,
	} {
		_, err := ParseConfig(nil, func(name string) string {
			return map[string]string{"ALLOWED_HOSTS": text}[name]
		})
		if (err == nil) != ok {
			t.Errorf("ALLOWED_HOSTS=%s: %v", text, err)
		}
	}
}
