package reader

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/openapi"
)

// signature holds the constant headers of a reader's responses.
type signature struct {
	all   map[string][]string // headers of every path
	posts map[string][]string // additional headers of the paths that browsers may read
	lines []byte              // both, for the fast lane, each line preceded by CRLF
}

// newSignature returns the headers of the reader podID. origin is Config.AllowOrigin.
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

// handler wraps next and adds the headers to every response.
func (s *signature) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), s.all)
		if strings.HasPrefix(r.URL.Path, postPath) || r.URL.Path == changesPath || r.URL.Path == openapi.Path {
			maps.Copy(w.Header(), s.posts)
		}
		next.ServeHTTP(w, r)
	})
}

// readable returns the methods of a path with h as the handler of GET and HEAD.
func readable(h http.HandlerFunc, origin string) httpkit.Methods {
	return withPreflight(httpkit.Read(h), origin)
}

// withPreflight adds OPTIONS to m if origin is set, for the CORS preflight that browsers send before a request with a header
// such as If-None-Match.
func withPreflight(m httpkit.Methods, origin string) httpkit.Methods {
	if origin != "" {
		m[http.MethodOptions] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD")
			w.Header().Set("Access-Control-Allow-Headers", "If-Match, If-None-Match, X-Min-Version, Last-Event-ID")
			w.Header().Set("Access-Control-Max-Age", "86400") // seconds
			w.WriteHeader(http.StatusNoContent)
		}
	}
	return m
}

// checkOrigin returns an error unless origin is empty, "*" or a valid origin.
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
