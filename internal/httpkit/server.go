package httpkit

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of every HTTP server of the stack.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 75 * time.Second // longer than the gateway's 60 s, so that the gateway closes first
	maxHeaderBytes    = 16 << 10
)

// HTTPServer is an http.Server that drops no request when it stops. http.Server.Shutdown alone does, because
// it counts a connection as idle until the whole header of a request has been read.
type HTTPServer struct {
	*http.Server
	draining, stopping atomic.Bool

	mu       sync.Mutex // guards the rest
	listener net.Listener
	conns    map[*trackedConn]struct{}
}

// NewServer returns a server with the stack's limits. The caller may lengthen the timeouts of a
// request that streams with http.ResponseController.
func NewServer(h http.Handler, log *slog.Logger) *HTTPServer {
	return Track(&http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       idleTimeout,
		// net/http adds 4 KiB of slop to this bound.
		MaxHeaderBytes: maxHeaderBytes - 4<<10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	})
}

// Track returns an HTTPServer that runs srv. Hooks of srv may be set until Serve is called.
func Track(srv *http.Server) *HTTPServer {
	s := &HTTPServer{Server: srv, conns: make(map[*trackedConn]struct{})}
	srv.Handler = s.announceClose(srv.Handler)
	return s
}

// Serve accepts connections on ln until Shutdown or Close. It returns http.ErrServerClosed then.
func (s *HTTPServer) Serve(ln net.Listener) error {
	hook := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			c.(*trackedConn).rest()
		}
		if hook != nil {
			hook(c, state)
		}
	}
	tracking := &trackingListener{Listener: ln, server: s}
	s.mu.Lock()
	s.listener = tracking
	s.mu.Unlock()
	err := s.Server.Serve(tracking)
	if s.stopping.Load() {
		return http.ErrServerClosed
	}
	return err
}

// Drain makes every answer from now on say that its connection closes, so that clients go elsewhere
// before the server stops.
func (s *HTTPServer) Drain() { s.draining.Store(true) }

// Shutdown closes the listener and the idle connections, and waits until every request has been
// answered of which a byte has been read. It returns the error of ctx when that takes too long; then
// call Close.
func (s *HTTPServer) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	s.Drain()
	s.mu.Lock()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.mu.Unlock()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	// Repeated, because net/http sets deadlines of its own.
	for s.cutIdle() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return s.Server.Shutdown(ctx)
}

const (
	pollInterval = 10 * time.Millisecond
	// settleTime is how long net/http may take to begin to read from a connection.
	settleTime = 50 * time.Millisecond
)

// cutIdle has net/http close the idle connections. It returns how many connections there are, idle or not.
func (s *HTTPServer) cutIdle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := time.Now().Add(-settleTime)
	for c := range s.conns {
		c.cutIdle(before)
	}
	return len(s.conns)
}

// announceClose returns h whose answers say during the drain that the connection closes.
func (s *HTTPServer) announceClose(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &closingWriter{ResponseWriter: w, draining: &s.draining}
		h.ServeHTTP(cw, r)
		cw.announce() // an answer without a body may still be unwritten
	})
}

// closingWriter adds Connection: close when the header is written, not before: the drain may begin while the
// request is being served. Unwrap lets http.ResponseController reach
// the connection.
type closingWriter struct {
	http.ResponseWriter
	draining *atomic.Bool
	written  bool
}

func (w *closingWriter) announce() {
	if !w.written && w.draining.Load() {
		w.Header().Set("Connection", "close") // net/http closes the connection then
	}
}

func (w *closingWriter) WriteHeader(status int) {
	w.announce()
	w.written = status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *closingWriter) Write(p []byte) (int, error) {
	w.announce()
	w.written = true
	return w.ResponseWriter.Write(p)
}

func (w *closingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// trackingListener wraps the connections that it accepts. It can be closed again: by Shutdown, and by
// net/http after it.
type trackingListener struct {
	net.Listener
	server *HTTPServer
	once   sync.Once
}

func (l *trackingListener) Close() (err error) {
	l.once.Do(func() { err = l.Listener.Close() })
	return err
}

func (l *trackingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: nc, server: l.server, since: time.Now()}
	l.server.mu.Lock()
	l.server.conns[c] = struct{}{}
	l.server.mu.Unlock()
	return c, nil
}

// trackedConn tracks whether a request is in flight on its connection.
type trackedConn struct {
	net.Conn
	server *HTTPServer

	mu    sync.Mutex // guards the rest, and orders cutIdle's deadline before or after a read
	busy  bool       // a byte has been read of a request that has not been answered
	cut   bool       // cutIdle has set a deadline
	since time.Time  // when the connection was accepted or had its last answer
}

func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy = true
		if c.cut { // too late: the request is answered
			c.cut = false
			_ = c.Conn.SetReadDeadline(time.Time{})
		}
	}
	return n, err
}

// rest notes that the request has been answered.
func (c *trackedConn) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.since = false, time.Now()
}

// cutIdle ends the wait for a request on a connection that has been idle since before. It sets a
// deadline rather than closing the connection: a request that arrives at this moment is still
// answered.
func (c *trackedConn) cutIdle(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.busy && c.since.Before(before) {
		c.cut = true
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// CloseWrite lets net/http end a connection gently.
func (c *trackedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *trackedConn) Close() error {
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	return c.Conn.Close()
}
