package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"heavy-read-api/internal/httpkit"
)

const (
	requestTimeout = 30 * time.Second // for a whole exchange: the server's bound for writing the answer
	maxRequestID   = 128              // bytes
	maxBody        = 16 << 10         // bytes; above it a request is too large, below it is merely wrong
)

// routes maps the paths that are passed on to the names of their routes.
var routes = map[string]string{
	"/post":         "post",
	"/post-redis":   "post-redis",
	"/post-marshal": "post-marshal",
	"/health":       "health",
}

// handler is the gateway's front: routes, request ids, metrics.
type handler struct {
	proxy   *httputil.ReverseProxy
	metrics *metrics
}

func newHandler(transport http.RoundTripper, m *metrics, log *slog.Logger) *handler {
	return &handler{
		metrics: m,
		proxy: &httputil.ReverseProxy{
			Transport:      transport,
			Rewrite:        rewrite,
			ModifyResponse: cleanAnswer,
			ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { answerError(w, r, err, log) },
			ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
			BufferPool:     new(bufferPool),
		},
	}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	x := new(exchange)
	route := routes[r.URL.Path]
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions && route != "health":
	default:
		route = "" // APISIX answers 404 for a method that the route does not list
	}
	// Deferred, because the proxy panics to cut the connection when a body breaks off.
	defer func(start time.Time) { h.metrics.observe(route, r, rec, x, time.Since(start)) }(time.Now())

	id := r.Header.Get("X-Request-Id")
	if !validRequestID(id) {
		id = newRequestID()
	}
	r.Header.Set("X-Request-Id", id)
	rec.Header().Set("X-Request-Id", id)
	r.Header.Del("Upgrade") // no reader speaks another protocol

	switch {
	case route == "":
		httpkit.Problem{Status: http.StatusNotFound, Detail: "there is no route for this method and path"}.WriteTo(rec)
	case r.ContentLength > maxBody:
		httpkit.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "a read takes no body", Limit: maxBody}.WriteTo(rec)
	case r.ContentLength != 0:
		httpkit.Problem{Status: http.StatusBadRequest, Detail: "a read takes no body: send it without one"}.WriteTo(rec)
	default:
		// net/http cancels the request's context when the client closes its sending side, and such a client still
		// reads. Without it the tries are bounded all the same.
		ctx := context.WithValue(context.WithoutCancel(r.Context()), exchangeKey{}, x)
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		h.proxy.ServeHTTP(rec, r.WithContext(ctx))
	}
}

// answerError answers a request that no reader answered.
func answerError(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	p := httpkit.Problem{Status: http.StatusBadGateway, Detail: "the connection to the reader failed: try again"}
	switch {
	case errors.Is(err, errNoReader):
		p = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "no reader is listed: try again later"}
		w.Header().Set("Retry-After", "1")
	case isTimeout(err):
		p = httpkit.Problem{Status: http.StatusGatewayTimeout, Detail: "no reader answered in time: try again"}
	}
	log.Debug("request failed", "request_id", w.Header().Get("X-Request-Id"), "path", r.URL.Path, "status", p.Status, "err", err)
	p.WriteTo(w)
}

// validRequestID reports whether a client's id is passed on: short and of visible ASCII.
func validRequestID(id string) bool {
	for i := range len(id) {
		if id[i] < '!' || id[i] > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= maxRequestID
}

// newRequestID returns a random UUID (version 4).
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

const copyBuffer = 32 << 10 // bytes

// bufferPool lends the proxy its copy buffers. It holds pointers to arrays, because a slice put
// into a sync.Pool is an allocation.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBuffer]byte)(b)) }
