package reader

import (
	"net/http"
	"strings"
	"testing"

	"heavy-read-api/internal/post"
	"heavy-read-api/internal/test/redistest"
)

// With CORS_ALLOW_ORIGIN, web pages of that origin may read posts, and nothing else.
func TestCORS(t *testing.T) {
	b := redistest.StartEmbedded(t)
	publish(t, newPublisher(t, b.Addr()), post.Post{ID: "a", Title: "t"})
	const origin = "https://www.example.org"
	closed, open := startReady(t, b.Addr()), startReady(t, b.Addr(), func(c *Config) { c.AllowOrigin = origin })
	for _, tt := range []struct {
		target, header string // header, if set, sends the request to the std lane
		allowed        bool
	}{
		{"/post?id=a", "", true},
		{"/post?id=a", "Expect", true},
		{"/post?id=none", "", true},
		{"/post-redis?id=a", "", true},
		{"/post-marshal?id=a", "", true},
		{"/health", "", false},
		{"/metrics", "", false},
		{"/status", "", false},
	} {
		header := []string{"Origin", origin}
		if tt.header != "" {
			header = append(header, tt.header, "100-continue")
		}
		res := open.do(t, "GET", tt.target, header...)
		if got := res.header.Get("Access-Control-Allow-Origin"); (got == origin) != tt.allowed {
			t.Errorf("%s %s: Access-Control-Allow-Origin %q", tt.target, tt.header, got)
		}
		if exposed := res.header.Get("Access-Control-Expose-Headers"); strings.Contains(exposed, "X-Version") != tt.allowed {
			t.Errorf("%s: Access-Control-Expose-Headers %q", tt.target, exposed)
		}
		if res := closed.do(t, "GET", tt.target, header...); res.header["Access-Control-Allow-Origin"] != nil {
			t.Errorf("%s of a reader without CORS: %v", tt.target, res.header)
		}
	}
	res := open.do(t, "OPTIONS", "/post?id=a", "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "if-none-match")
	if res.status != http.StatusNoContent || res.header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(res.header.Get("Access-Control-Allow-Headers"), "If-None-Match") {
		t.Errorf("CORS preflight: %d %v", res.status, res.header)
	}
	if res := closed.do(t, "OPTIONS", "/post?id=a"); res.status != http.StatusMethodNotAllowed {
		t.Errorf("CORS preflight without CORS_ALLOW_ORIGIN: %d", res.status)
	}
	for text, ok := range map[string]bool{
		"*": true, "https://www.example.org": true, "http://localhost:3000": true, "": true,
		"www.example.org": false, "https://www.example.org/": false, "https://a.example, https://b.example": false, "null": false, "https://*.example.org": false,
	} {
		_, err := ParseConfig(nil, func(name string) string { return map[string]string{"CORS_ALLOW_ORIGIN": text}[name] })
		if (err == nil) != ok {
			t.Errorf("CORS_ALLOW_ORIGIN=%s: %v", text, err)
		}
	}
}
