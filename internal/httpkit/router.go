package httpkit

import (
	"net/http"
	"slices"
	"strings"
)

// unknownRoute is the route of requests to unknown paths in the metrics, because the paths themselves would
// be an unbounded number of labels.
const unknownRoute = "other"

// Router serves exact paths, without cleaning or redirecting. It answers other paths and methods with a
// problem document. Each path is a route in the metrics.
type Router struct {
	metrics *HTTPMetrics
	paths   map[string]http.Handler
	unknown http.Handler
	badHost http.Handler
}

// NewRouter returns a Router without paths. Call Handle before the first request.
func NewRouter(m *HTTPMetrics) *Router {
	always := func(p Problem) http.Handler {
		return m.instrument(unknownRoute, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { p.WriteTo(w) }))
	}
	return &Router{
		metrics: m,
		paths:   make(map[string]http.Handler),
		unknown: always(Problem{Status: http.StatusNotFound, Detail: "nothing is served at this path"}),
		badHost: always(BadHost),
	}
}

// BadHost is the answer to a request whose Host is invalid.
var BadHost = Problem{Status: http.StatusBadRequest, Field: "Host", Detail: "Host is invalid: send a name or an address, optionally with a colon and a port; put an IPv6 address in brackets"}

// Methods maps the methods of a path to their handlers.
type Methods map[string]http.HandlerFunc

// Read returns the methods of a read-only path: h answers GET and HEAD.
func Read(h http.HandlerFunc) Methods { return Methods{http.MethodGet: h, http.MethodHead: h} }

// Handle registers the handlers of a path. It answers other methods with 405.
func (r *Router) Handle(path string, methods Methods) {
	r.paths[path] = r.metrics.instrument(path, methods.handler())
}

// HandleStream is Handle for answers that take as long as their clients want: they are counted and not timed.
func (r *Router) HandleStream(path string, methods Methods) {
	r.paths[path] = r.metrics.count(path, methods.handler())
}

// handler answers methods that m does not have with 405.
func (m Methods) handler() http.Handler {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	allow := strings.Join(names, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if h, ok := m[req.Method]; ok {
			h(w, req)
			return
		}
		w.Header().Set("Allow", allow)
		Problem{Status: http.StatusMethodNotAllowed, Detail: "this path supports only " + allow}.WriteTo(w)
	})
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
