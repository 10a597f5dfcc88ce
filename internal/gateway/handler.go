package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"heavy-read-api/internal/httpkit"
)

const (
	maxRequestID = 128      // bytes
	maxBody      = 16 << 10 // bytes; a larger body is answered with 413, a smaller one with 400
)

const postPath = "/post"

// routes maps each path that is forwarded to the name of its route.
var routes = map[string]string{
	postPath:        "post",
	"/posts":        "posts",
	"/post-redis":   "post-redis",
	"/post-marshal": "post-marshal",
	changesPath:     "changes",
	"/openapi.yaml": "openapi.yaml",
	"/health":       "health",
}

// proxy is what the lane and the handler share.
type proxy struct {
	balancer *balancer
	metrics  *metrics
	log      *slog.Logger
	stopping context.Context // done when the drain begins: streams end
}

// handler serves the requests that are not for the lane.
type handler struct{ *proxy }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	x := &exchange{start: time.Now(), head: r.Method == http.MethodHead}
	x.repeatable = x.head || r.Method == http.MethodGet
	route := routes[r.URL.Path]
	if !x.repeatable && (r.Method != http.MethodOptions || route == "health") {
		route = "" // APISIX answers 404 for a method that the route does not list
	}
	// Deferred, because relay panics if a body is truncated.
	defer func() { h.metrics.observe(route, r, rec, x) }()

	id := appendRequestID(nil, []byte(r.Header.Get("X-Request-Id")))
	rec.Header().Set("X-Request-Id", string(id))
	switch {
	case !httpkit.ValidHost(r.Host):
		httpkit.BadHost.WriteTo(rec)
	case route == "":
		httpkit.Problem{Status: http.StatusNotFound, Detail: "there is no route for this method and path"}.WriteTo(rec)
	case r.ContentLength > maxBody:
		httpkit.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "a read must not have a body: send it without one", Limit: maxBody}.WriteTo(rec)
	case r.ContentLength != 0:
		httpkit.Problem{Status: http.StatusBadRequest, Detail: "a read must not have a body: send it without one"}.WriteTo(rec)
	default:
		h.forward(rec, r, x, id)
	}
}

// forward sends r to a reader and relays the answer.
func (h *handler) forward(w http.ResponseWriter, r *http.Request, x *exchange, id []byte) {
	var lines bytes.Buffer
	var sent header
	_ = r.Header.Write(&lines) // writing to a buffer never fails
	if err := sent.read(lines.Bytes()); err != nil {
		httpkit.Problem{Status: http.StatusBadRequest, Detail: err.Error()}.WriteTo(w)
		return
	}
	sent.host = []byte(r.Host)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	remote, _ := net.ResolveTCPAddr("tcp", r.RemoteAddr)
	if r.URL.Path == changesPath {
		ctx, release := h.follow(w, r)
		defer release()
		x.stream = ctx
	}
	x.message = newPeer(remote, local).appendRequest(nil, r.Method, []byte(r.URL.RequestURI()), &sent, id)
	if err := h.balancer.send(x); err != nil {
		p := h.failure(err, id)
		if p.Status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", retryAfter)
		}
		p.WriteTo(w)
		return
	}
	if x.stream != nil {
		h.relayStream(w, x)
		return
	}
	relay(w, &x.answer)
}

// relay writes a to w. If the body is truncated, it panics with http.ErrAbortHandler, so that net/http closes the connection.
func relay(w http.ResponseWriter, a *answer) {
	defer a.release()
	writeHeader(w, a)
	if a.left < 0 {
		_ = http.NewResponseController(w).Flush() // otherwise net/http replaces the chunks of a short body by a Content-Length
	}
	if _, err := io.Copy(w, a); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// writeHeader writes the header of a to w.
func writeHeader(w http.ResponseWriter, a *answer) {
	h := w.Header()
	h["Content-Type"] = nil // otherwise net/http guesses one
	for line := range bytes.SplitSeq(bytes.TrimSuffix(a.kept, crlf), crlf) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok {
			h[http.CanonicalHeaderKey(string(name))] = append(h.Values(string(name)), string(bytes.Trim(value, " \t")))
		}
	}
	if a.length >= 0 {
		h.Set("Content-Length", strconv.FormatInt(a.length, 10))
	}
	w.WriteHeader(a.code)
}

// retryAfter is the value of Retry-After, in seconds.
const retryAfter = "1"

// failure returns the problem for a request that no reader answered.
func (p *proxy) failure(err error, id []byte) httpkit.Problem {
	answer := httpkit.Problem{Status: http.StatusBadGateway, Detail: "the connection to the reader failed: try again"}
	switch {
	case p.stopping != nil && p.stopping.Err() != nil && isTimeout(err):
		answer = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "the gateway is stopping: try again"}
	case errors.Is(err, errNoReader):
		answer = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "no reader is listed: try again later"}
	case isShortage(err):
		answer = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "the gateway cannot open another connection: try again later"}
	case isTimeout(err):
		answer = httpkit.Problem{Status: http.StatusGatewayTimeout, Detail: "no reader answered in time: try again"}
	}
	p.log.Debug("request failed", "request_id", string(id), "status", answer.Status, "err", err)
	return answer
}

// peer describes the client of a connection to readers.
type peer struct {
	address []byte // IP address
	fixed   []byte // header lines that are the same in all requests of the connection
}

func newPeer(remote, local net.Addr) *peer {
	c := new(peer)
	if a, ok := remote.(*net.TCPAddr); ok && a != nil {
		c.address = []byte(a.AddrPort().Addr().Unmap().String())
	}
	c.fixed = slices.Concat([]byte("X-Real-IP: "), c.address, []byte("\r\nX-Forwarded-Proto: http\r\n"))
	if a, ok := local.(*net.TCPAddr); ok {
		c.fixed = append(strconv.AppendInt(append(c.fixed, "X-Forwarded-Port: "...), int64(a.Port), 10), crlf...)
	}
	return c
}

// appendRequest appends the request for a reader. Its Host is the name of the upstream, because a request of HTTP/1.0 may
// have none and HTTP/1.1 requires one.
func (c *peer) appendRequest(b []byte, method string, target []byte, h *header, id []byte) []byte {
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "+upstreamName+"\r\n"...)
	b = append(b, h.kept...)
	b = append(b, c.fixed...)
	b = append(b, "X-Request-Id: "...)
	b = append(b, id...)
	b = append(b, "\r\nX-Forwarded-Host: "...)
	b = append(b, h.host...)
	b = append(b, "\r\nX-Forwarded-For: "...)
	if len(h.forwardedFor) > 0 {
		b = append(b, h.forwardedFor...)
		b = append(b, ", "...)
	}
	b = append(b, c.address...)
	return append(b, "\r\n\r\n"...)
}

// appendRequestID appends the client's request id if it is short and visible ASCII, else a random UUID (version 4). The id
// has to be unique but not secret, so math/rand is enough.
func appendRequestID(b, sent []byte) []byte {
	if validRequestID(sent) {
		return append(b, sent...)
	}
	var u [16]byte
	binary.LittleEndian.PutUint64(u[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(u[8:], rand.Uint64())
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	from := 0
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, u[from:end])
		from = end
	}
	return b
}

func validRequestID(id []byte) bool {
	for _, c := range id {
		if c < '!' || c > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= maxRequestID
}
