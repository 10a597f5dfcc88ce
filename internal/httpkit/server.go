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

// Limits of every HTTP server of the stack.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 75 * time.Second // longer than the gateway's 60 s, so that the gateway closes idle connections first
	maxHeaderBytes    = 16 << 10
)

// HTTPServer is an http.Server that drops no request when it stops. http.Server.Shutdown may drop one, because
// it treats a connection as idle until it has read the whole header of a request.
type HTTPServer struct {
	*http.Server
	draining, stopping atomic.Bool

	mu       sync.Mutex // guards the rest
	listener *Listener
	conns    map[*trackedConn]struct{}
}

// NewServer returns a server with the stack's limits. A handler that streams may extend the timeouts of its
// request with http.ResponseController.
func NewServer(h http.Handler, log *slog.Logger) *HTTPServer {
	return Track(&http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       idleTimeout,
		// net/http allows 4 KiB more than this limit.
		MaxHeaderBytes: maxHeaderBytes - 4<<10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	})
}

// Track returns an HTTPServer that runs srv. The caller may set hooks of srv until Serve is called.
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
			c.(*trackedConn).setIdle()
		}
		if hook != nil {
			hook(c, state)
		}
	}
	tracking := &trackingListener{Listener: NewListener(ln), server: s}
	s.mu.Lock()
	s.listener = tracking.Listener
	s.mu.Unlock()
	err := s.Server.Serve(tracking)
	if s.stopping.Load() {
		return http.ErrServerClosed
	}
	return err
}

// Drain adds Connection: close to all later answers, so that clients connect to other servers before this one
// stops.
func (s *HTTPServer) Drain() { s.draining.Store(true) }

// Shutdown drains the listener, closes the idle connections, and waits for the answers to all requests of which
// at least one byte has been read. If ctx ends first, it returns the error of ctx; the caller must then call
// Close.
func (s *HTTPServer) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	s.Drain()
	s.mu.Lock()
	ln := s.listener
	s.mu.Unlock()
	if ln != nil {
		ln.Drain()
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	// cutIdle is repeated, because net/http may replace its deadlines.
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
	// settleTime is the time within which net/http begins to read from a new or idle connection.
	settleTime = 50 * time.Millisecond
)

// cutIdle makes net/http close the idle connections. It returns the number of all connections.
func (s *HTTPServer) cutIdle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := time.Now().Add(-settleTime)
	for c := range s.conns {
		c.cutIdle(before)
	}
	return len(s.conns)
}

// announceClose wraps h so that its answers carry Connection: close during the drain.
func (s *HTTPServer) announceClose(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &closingWriter{ResponseWriter: w, draining: &s.draining}
		h.ServeHTTP(cw, r)
		cw.announce() // the header of an answer without a body may not have been written yet
	})
}

// closingWriter adds Connection: close when the header is written rather than earlier, because the drain may
// begin while the request is being served. Unwrap lets http.ResponseController reach the connection.
type closingWriter struct {
	http.ResponseWriter
	draining *atomic.Bool
	written  bool
}

func (w *closingWriter) announce() {
	if !w.written && w.draining.Load() {
		w.Header().Set("Connection", "close") // also makes net/http close the connection
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

// trackingListener wraps the connections that it accepts.
type trackingListener struct {
	*Listener
	server *HTTPServer
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

	mu    sync.Mutex // guards the rest, and serializes the deadlines of cutIdle and Read
	busy  bool       // at least one byte of an unanswered request has been read
	cut   bool       // cutIdle has set a deadline
	since time.Time  // time at which the connection was accepted or its last request was answered
}

func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy = true
		if c.cut { // a request has arrived before the deadline took effect, so it is served
			c.cut = false
			_ = c.Conn.SetReadDeadline(time.Time{})
		}
	}
	return n, err
}

// setIdle records that the request has been answered.
func (c *trackedConn) setIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.since = false, time.Now()
}

// cutIdle ends the wait for a request on a connection that became idle before the given time. It sets a
// deadline rather than closing the connection, so that a request that arrives at this moment is still
// answered.
func (c *trackedConn) cutIdle(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.busy && c.since.Before(before) {
		c.cut = true
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// CloseWrite lets net/http half-close the connection, so that the client receives the last answer.
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
