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
	Handler func() Handler // makes the handler of a connection; with nil, net/http answers every request
	// Refuse appends a whole answer to b that refuses a request before any handler has it: the request is not
	// valid HTTP or too long, or there are too many connections. The answer must say that its connection
	// closes; to HEAD it has no body. By default it is a problem document.
	Refuse   func(b []byte, status int, detail string, head bool) []byte
	Std      *httpkit.HTTPServer // serves everything else, and belongs to the Server; its timeouts bound the fast lane too
	MaxConns int                 // connections at a time, both lanes together; by default 20,000, or what the limit of open files has room for
	Probes   []string            // paths that are served also when there are too many connections, such as "/ready"
	// FilesPerConn is how many open files a connection may need, its own included; 1 by default.
	FilesPerConn int
	MaxPinned    int64 // bytes of large bodies that answers to slow clients may keep in memory; by default 64 MiB
	Logger       *slog.Logger
}

// Server serves connections in the fast lane and hands them to an http.Server when they leave it.
// Its methods are like those of http.Server.
type Server struct {
	shape      shape
	newHandler func() Handler
	refuse     func(b []byte, status int, detail string, head bool) []byte
	http       *httpkit.HTTPServer
	std        *handoff
	maxConns   int
	log        *slog.Logger

	tick     atomic.Uint32 // clock of the sweep, in units of sweepPause
	date     atomic.Pointer[[]byte]
	draining atomic.Bool // every answer carries Connection: close
	stopping atomic.Bool
	accepted atomic.Int64
	door     door
	pins     pins

	mu       sync.Mutex // guards the rest
	listener net.Listener
	conns    map[*conn]struct{}
}

// sweepPause is the time between two sweeps, and so the resolution of all timeouts.
const sweepPause = 250 * time.Millisecond

const defaultMaxConns = 20_000

// Bounds of the idle time while less than an eighth of the places are free, where IdleTimeout is not
// shorter anyway. A connection that has never sent a byte goes first: a client may come back to the others.
const (
	crowdedFresh = time.Second
	crowdedIdle  = 10 * time.Second
)

// New returns a Server.
func New(cfg Config) *Server {
	conns, turned := places(fileLimit(), max(1, cfg.FilesPerConn))
	s := &Server{
		shape:      newShape(cfg.Path),
		newHandler: cfg.Handler,
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
	s.door = door{server: s, probes: cfg.Probes, most: turned, conns: list.New()}
	s.setDate()
	watch(cfg.Std.Server)
	return s
}

// Date returns the current value of the Date header, a quarter of a second old at most. The caller must not
// change it.
func (s *Server) Date() []byte { return *s.date.Load() }

func (s *Server) setDate() {
	date := time.Now().UTC().AppendFormat(nil, http.TimeFormat)
	s.date.Store(&date)
}

// problem is the default of Config.Refuse.
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

// Serve accepts connections on ln until Shutdown or Close, either of which may come first. It returns
// http.ErrServerClosed then.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	s.listener = ln
	s.mu.Unlock()
	if s.stopping.Load() { // Shutdown may not have seen the listener
		_ = ln.Close()
		return http.ErrServerClosed
	}
	s.std.addr = ln.Addr()
	served := make(chan error, 1)
	go func() { served <- s.http.Server.Serve(s.std) }() // its connections are tracked here
	sweeping, stop := context.WithCancel(context.Background())
	defer stop()
	go s.sweep(sweeping)

	err := s.accept(ln)
	if s.stopping.Load() {
		<-served // Shutdown ends it
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
		case s.stopping.Load():
			return http.ErrServerClosed
		case errors.As(err, &temporary) && temporary.Temporary(): // out of file descriptors
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed; trying again", "err", err, "in", pause)
			time.Sleep(pause)
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// start serves nc, or passes it to the door when all places are taken.
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
		s.door.turn(nc)
		return
	}
	if s.newHandler != nil {
		c.handler = s.newHandler()
	}
	c.buf, c.least = make([]byte, readBuffer), 1
	c.out.conn, c.out.fd = c, noFD
	go c.serve()
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// sweep gives up connections that take too long: it sets a deadline that has passed, and the
// connection's own goroutine closes it.
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

func (s *Server) crowded() bool { return s.open() > s.maxConns*7/8 }

// each calls f for every connection, both lanes together, and returns their number.
func (s *Server) each(f func(*conn)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
	return len(s.conns)
}

// Drain makes every answer from now on say that its connection closes, in both lanes.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.http.Drain()
}

// Shutdown stops in order: it accepts no new connections, closes idle ones, and answers requests in flight
// with Connection: close. It returns when all connections are gone, or
// with the error of ctx; then call Close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopping.Store(true)
	s.Drain()
	s.closeListener()
	// The other lane's Shutdown comes last, when both lanes are empty: from then on net/http accepts no
	// connection from the fast lane.
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

// Close ends everything at once.
func (s *Server) Close() error {
	s.stopping.Store(true)
	s.closeListener()
	s.each(func(c *conn) { _ = c.Conn.Close() })
	return s.http.Close()
}

func (s *Server) closeListener() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.Close()
	}
}

// open returns the number of open connections, both lanes together.
func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// MaxConns returns how many connections the server takes at a time, both lanes together.
func (s *Server) MaxConns() int { return s.maxConns }

// States are numbers of connections.
type States struct {
	Accepted int // since the start
	Reading  int // waiting for a first request or the rest of a header
	Writing  int // with a request that is being answered
	Waiting  int // waiting for another request
}

// States counts the connections by state, both lanes together.
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

// handoff is the listener of the http.Server: it accepts connections that left the fast lane.
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
