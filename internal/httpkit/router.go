package httpkit

import (
	"net/http"
	"slices"
	"strings"
)

// unknownRoute is the metrics' route for requests to unknown paths: the path itself would be an unbounded
// label.
const unknownRoute = "other"

// Router serves exact paths: it cleans and redirects none. Other paths and methods are answered with a
// problem document. Every path is a route of the metrics.
type Router struct {
	metrics *HTTPMetrics
	paths   map[string]http.Handler
	unknown http.Handler
	badHost http.Handler
}

// NewRouter returns a Router without paths. Add them before the first request.
func NewRouter(m *HTTPMetrics) *Router {
	always := func(p Problem) http.Handler {
		return m.Instrument(unknownRoute, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { p.WriteTo(w) }))
	}
	return &Router{
		metrics: m,
		paths:   make(map[string]http.Handler),
		unknown: always(Problem{Status: http.StatusNotFound, Detail: "nothing is served at this path"}),
		badHost: always(BadHost),
	}
}

// BadHost answers a request whose Host is not valid.
var BadHost = Problem{Status: http.StatusBadRequest, Field: "Host", Detail: "Host is not valid: send a name or an address, and a port after a colon where there is one; IPv6 addresses stand in brackets"}

// Methods are the handlers of one path.
type Methods map[string]http.HandlerFunc

// Read returns the methods of a path that is only read: h answers GET and HEAD.
func Read(h http.HandlerFunc) Methods { return Methods{http.MethodGet: h, http.MethodHead: h} }

// Handle serves path with the handlers of its methods; other methods are answered with 405.
func (r *Router) Handle(path string, methods Methods) {
	names := make([]string, 0, len(methods))
	for name := range methods {
		names = append(names, name)
	}
	slices.Sort(names)
	allow := strings.Join(names, ", ")
	r.paths[path] = r.metrics.Instrument(path, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if h, ok := methods[req.Method]; ok {
			h(w, req)
			return
		}
		methodNotAllowed(w, allow)
	}))
}

func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h, ok := r.paths[req.URL.Path]
	switch {
	case !ValidHost(req.Host):
		h = r.badHost
	case !ok:
		h = r.unknown
	}
	h.ServeHTTP(w, req)
}
