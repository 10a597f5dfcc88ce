package fastlane

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
)

// direct passes the requests of a connection to an http.Handler, on the goroutine of the connection. net/http's server
// starts a second goroutine for each request with a body, to notice that the client disconnects: for a short request,
// that costs more than the request itself.
type direct struct {
	server  *Server
	path    string
	handler http.Handler
	ctx     context.Context // of all requests
	remote  string          // address of the client; "" before the first request
	answer  directAnswer
}

// directTo returns a function that creates the handlers of connections.
func directTo(s *Server, path string, h http.Handler) func() Handler {
	ctx := context.WithValue(context.Background(), http.ServerContextKey, s.http.Server)
	return func() Handler { return &direct{server: s, path: path, handler: h, ctx: ctx} }
}

// Flushed implements Handler.
func (d *direct) Flushed() {}

// Serve implements Handler.
func (d *direct) Serve(out *Output, q *Request) {
	if !out.Flush() { // earlier answers must not wait for this one
		return
	}
	defer func() {
		if e := recover(); e != nil {
			out.Abandon()
			if e != http.ErrAbortHandler {
				d.server.log.Error("a request was not answered, because its handler panicked", "path", d.path, "panic", e, "stack", string(debug.Stack()))
			}
		}
	}()
	if d.remote == "" {
		d.remote = out.RemoteAddr().String()
	}
	r := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: d.path}, RequestURI: d.path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(q.Body)), Body: io.NopCloser(bytes.NewReader(q.Body)), RemoteAddr: d.remote, Close: q.close,
	}).WithContext(d.ctx)
	r.Header, r.Host = headerOf(string(q.Fields))
	a := &d.answer
	*a = directAnswer{header: make(http.Header, 8), body: a.body[:0]}
	d.handler.ServeHTTP(a, r)
	a.WriteHeader(http.StatusOK) // if the handler has not
	out.closing = out.closing || a.header.Get("Connection") == "close"
	if out.Closing() {
		a.header.Set("Connection", "close")
	}
	out.SetBuffer(a.append(out.Buffer(), d.server.Date()))
}

// headerOf returns the fields that the fast lane has accepted, as net/http does: without Host, which is returned apart.
func headerOf(fields string) (h http.Header, host string) {
	h = make(http.Header, 8)
	for fields != "" {
		var line string
		line, fields, _ = strings.Cut(fields, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		if name == "Host" {
			host = value
			continue
		}
		h[name] = append(h[name], value)
	}
	return h, host
}

// directAnswer collects an answer. It implements http.ResponseWriter.
type directAnswer struct {
	header http.Header
	status int // 0 before WriteHeader
	body   []byte
}

func (a *directAnswer) Header() http.Header { return a.header }

func (a *directAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *directAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, b...)
	return len(b), nil
}

// append appends the answer to b.
func (a *directAnswer) append(b []byte, date []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(a.status)...)
	b = append(b, "\r\nDate: "...)
	b = append(b, date...)
	b = append(b, "\r\n"...)
	into := bytes.NewBuffer(b)
	_ = a.header.Write(into) // cannot fail
	into.WriteString("\r\n")
	into.Write(a.body)
	return into.Bytes()
}
