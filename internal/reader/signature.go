package reader

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"heavy-read-api/internal/httpkit"
)

// signature is what the header of every answer of a reader has: its name, and what browsers have to know.
type signature struct {
	all   map[string][]string // of every path
	posts map[string][]string // besides, of the paths of posts
	lines []byte              // of posts, for the fast lane: each behind a CRLF
}

// newSignature returns the signature of the reader podID, whose answers pages of origin may read; "" is no
// page of another origin, "*" every page.
func newSignature(podID, origin string) *signature {
	s := &signature{all: map[string][]string{headerSniffing: {noSniffing}, headerServedBy: {podID}}}
	if origin != "" {
		s.posts = map[string][]string{
			"Access-Control-Allow-Origin":   {origin},
			"Access-Control-Expose-Headers": {strings.Join([]string{headerETag, headerVersion, headerServedBy, headerRetryAfter}, ", ")},
		}
	}
	for _, fields := range []map[string][]string{s.all, s.posts} {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			s.lines = append(s.lines, "\r\n"+name+": "+fields[name][0]...)
		}
	}
	return s
}

// handler returns next with the signature in every answer.
func (s *signature) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), s.all)
		if strings.HasPrefix(r.URL.Path, postPath) {
			maps.Copy(w.Header(), s.posts)
		}
		next.ServeHTTP(w, r)
	})
}

// readable returns the methods of a path that h answers. With CORS that is also what browsers ask before a
// page of another origin may send a header such as If-None-Match.
func readable(h http.HandlerFunc, origin string) httpkit.Methods {
	m := httpkit.Read(h)
	if origin != "" {
		m[http.MethodOptions] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD")
			w.Header().Set("Access-Control-Allow-Headers", "If-Match, If-None-Match, X-Min-Version")
			w.Header().Set("Access-Control-Max-Age", "86400") // seconds
			w.WriteHeader(http.StatusNoContent)
		}
	}
	return m
}

// checkOrigin reports a CORS_ALLOW_ORIGIN that no browser would understand.
func checkOrigin(origin string) error {
	if origin == "" || origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(origin, "* ,\r\n") {
		return fmt.Errorf("CORS_ALLOW_ORIGIN=%q: use one origin without a path, such as https://www.example.org, or *", origin)
	}
	return nil
}
