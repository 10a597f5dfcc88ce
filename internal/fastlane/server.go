package fastlane

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/httpkit"
)

// Config configures a Server.
type Config struct {
	Path    string         // path of the requests that the fast lane answers, such as "/post"
	Handler func() Handler // creates the handler of a connection; nil with an empty Path
	// Post is the path of POST requests that the fast lane passes to the handler of Std without net/http's server, if they
	// have arrived as a whole. That handler must set Content-Type and Content-Length, and must not keep the body. Post
	// cannot be combined with Path. Without Path and Post, net/http answers every request.
	Post string
	// Refuse appends an answer that refuses a request before it reaches a handler: because the request is
	// not valid HTTP or is too long, or because there are too many connections. The answer must carry
	// Connection: close, and must not have a body if head is true. By default it is a problem document.
	Refuse   func(b []byte, status int, detail string, head bool) []byte
	Std      *httpkit.HTTPServer // serves all other requests; owned by the Server; its timeouts apply to both lanes
	MaxConns int                 // maximum number of connections in both lanes; by default 20,000 or less if the limit of open files requires it
	Probes   []string            // paths that are also served when there are too many connections, such as "/ready"
	// FilesPerConn is the number of files that a connection may need, including itself; 1 by default.
	FilesPerConn int
	MaxPinned    int64 // maximum size of the large bodies that answers to slow clients keep in memory, in bytes; 64 MiB by default
	Logger       *slog.Logger
}

// Server serves connections in the fast lane and hands them over to an http.Server for other requests.
// Its methods are like those of http.Server.
type Server struct {
	shape      shape
	newHandler func() Handler // nil if net/http answers every request
	buffer     int            // first size of a read buffer, in bytes
	// stays means that a connection whose request was left to net/http is served by net/http's goroutine from then on. For
	// reads it returns instead, because an idle connection in net/http needs more memory.
	stays    bool
	refuse   func(b []byte, status int, detail string, head bool) []byte
	http     *httpkit.HTTPServer
	std      *handoff
	maxConns int
	log      *slog.Logger

	tick     atomic.Uint32 // number of sweeps: a clock in units of sweepPause
	date     atomic.Pointer[[]byte]
	draining atomic.Bool // answers carry Connection: close
	stopping atomic.Bool
	accepted atomic.Int64
	door     door
	pins     pins

	mu       sync.Mutex // guards the rest
	listener *httpkit.Listener
	conns    map[*conn]struct{}
}

// sweepPause is the time between two sweeps and the resolution of all timeouts.
const sweepPause = 250 * time.Millisecond

const defaultMaxConns = 20_000

// Idle timeouts while less than an eighth of the places are free, unless IdleTimeout is shorter. Connections
// that have never sent a byte have the shorter timeout, because clients are more likely to reuse the others.
const (
	crowdedFresh = time.Second
	crowdedIdle  = 10 * time.Second
)

// New returns a Server. Call Serve to start it.
func New(cfg Config) *Server {
	conns, atDoor := places(fileLimit(), max(1, cfg.FilesPerConn))
	s := &Server{
		shape:      newShape(cfg.Path, cfg.Post),
		newHandler: cfg.Handler,
		buffer:     readBuffer,
		stays:      cfg.Handler == nil,
		http:       cfg.Std,
		std:        &handoff{conns: make(chan net.Conn), done: make(chan struct{})},
		maxConns:   cmp.Or(cfg.MaxConns, conns),
		log:        cfg.Logger,
		conns:      make(map[*conn]struct{}),
	}
	if s.refuse = cfg.Refuse; s.refuse == nil {
		s.refuse = s.problem
	}
	s.pins = newPins(cmp.Or(cfg.MaxPinned, defaultMaxPinned))
	s.door = door{server: s, probes: cfg.Probes, most: atDoor, conns: list.New()}
	s.setDate()
	if cfg.Post != "" {
		s.newHandler, s.buffer = directTo(s, cfg.Post, cfg.Std.Handler), postBuffer
	}
	watch(cfg.Std.Server)
	return s
}

// Date returns the value of the Date header, which is at most 250 ms old. The caller must not modify it.
func (s *Server) Date() []byte { return *s.date.Load() }

func (s *Server) setDate() {
	date := time.Now().UTC().AppendFormat(nil, http.TimeFormat)
	s.date.Store(&date)
}

// problem is the default for Config.Refuse.
func (s *Server) problem(b []byte, status int, detail string, head bool) []byte {
	body := httpkit.Problem{Status: status, Detail: detail}.Bytes()
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\nDate: %s\r\nConnection: close\r\n",
		status, http.StatusText(status), httpkit.ProblemType, s.Date())
	if status == http.StatusServiceUnavailable {
		b = append(b, "Retry-After: 1\r\n"...)
	}
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", len(body))
	if head {
		return b
	}
	return append(b, body...)
}

// Serve accepts connections on l until Shutdown or Close, and then returns http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	ln := httpkit.NewListener(l)
	s.mu.Lock()
	s.listener = ln
	s.mu.Unlock()
	if s.stopping.Load() { // Shutdown may not have seen the listener
		_ = ln.Close()
		return http.ErrServerClosed
	}
	s.std.addr = ln.Addr()
	served := make(chan error, 1)
	go func() { served <- s.http.Server.Serve(s.std) }() // not s.http.Serve: this Server tracks the connections
	sweeping, stop := context.WithCancel(context.Background())
	defer stop()
	go s.sweep(sweeping)

	err := s.accept(ln)
	if s.stopping.Load() {
		<-served // ended by Shutdown or Close
		return http.ErrServerClosed
	}
	_ = s.Close()
	<-served
	return err
}

func (s *Server) accept(ln net.Listener) error {
	var pause time.Duration
	for {
		c, err := ln.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			pause = 0
			s.start(c)
		case errors.As(err, &temporary) && temporary.Temporary(): // out of file descriptors
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed; trying again", "err", err, "in", pause)
			time.Sleep(pause)
		case s.stopping.Load():
			return http.ErrServerClosed
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// start serves nc, or passes it to the door if all places are taken.
func (s *Server) start(nc net.Conn) {
	s.accepted.Add(1)
	c := &conn{Conn: nc, server: s, since: s.tick.Load()}
	c.enter(fresh, c.since)
	s.mu.Lock()
	full := len(s.conns) >= s.maxConns
	if !full {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		s.door.handle(nc)
		return
	}
	if s.newHandler != nil {
		c.handler = s.newHandler()
	}
	c.buf, c.least = make([]byte, s.buffer), 1
	c.out.conn, c.out.fd = c, noFD
	go c.serve()
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// sweep cuts the connections that exceed a timeout: it sets a deadline that has passed, and the goroutine of
// the connection closes it.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepPause)
	defer ticker.Stop()
	ticks := func(d time.Duration) uint32 { return uint32((d + sweepPause - 1) / sweepPause) }
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.setDate()
		now := s.tick.Add(1)
		idle, fresh := s.http.IdleTimeout, s.http.IdleTimeout
		if s.crowded() {
			idle, fresh = min(idle, crowdedIdle), min(fresh, crowdedFresh)
		}
		limits := limits{idle: ticks(idle), fresh: ticks(fresh), header: ticks(s.http.ReadHeaderTimeout), write: ticks(s.http.WriteTimeout)}
		s.each(func(c *conn) { c.sweep(now, &limits) })
		s.pins.trim(now)
	}
}

func (s *Server) crowded() bool { return s.connCount() > s.maxConns*7/8 }

// each calls f for every connection in both lanes and returns the number of connections.
func (s *Server) each(f func(*conn)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
	return len(s.conns)
}

// Drain adds Connection: close to all later answers in both lanes.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.http.Drain()
}

// Shutdown drains the listener, closes the idle connections, and answers requests in flight with Connection:
// close. It returns when all connections have been closed. If ctx ends first, it returns the error of ctx; the
// caller must then call Close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	s.Drain()
	if ln := s.currentListener(); ln != nil {
		ln.Drain()
	}
	// net/http is shut down last, once both lanes are empty, because afterwards it accepts no connection from
	// the fast lane.
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for s.each((*conn).cutIdle) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return s.http.Server.Shutdown(ctx)
}

// Close closes the listener and all connections immediately.
func (s *Server) Close() error {
	s.stopping.Store(true)
	if ln := s.currentListener(); ln != nil {
		_ = ln.Close()
	}
	// Not in this goroutine: while a handler runs inside RawConn.Read, closing its connection blocks until the handler returns.
	s.each(func(c *conn) { go c.Conn.Close() })
	return s.std.Close() // rather than s.http.Close, which would also close the connections, in this goroutine
}

// currentListener returns the listener, nil before Serve.
func (s *Server) currentListener() *httpkit.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener
}

// connCount returns the number of connections in both lanes.
func (s *Server) connCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// MaxConns returns the maximum number of connections in both lanes.
func (s *Server) MaxConns() int { return s.maxConns }

// States holds numbers of connections.
type States struct {
	Accepted int // connections accepted since the start
	Reading  int // connections that wait for a first request or the rest of a header
	Writing  int // connections with a request in flight
	Waiting  int // connections that wait for another request
}

// States counts the connections in both lanes by state.
func (s *Server) States() States {
	n := States{Accepted: int(s.accepted.Load())}
	s.each(func(c *conn) {
		switch c.phase() {
		case fresh, reading:
			n.Reading++
		case idle, poked, cut:
			n.Waiting++
		default:
			n.Writing++
		}
	})
	return n
}

// handoff is the listener of the http.Server. It accepts the connections that leave the fast lane.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

func (h *handoff) push(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return h.addr }
