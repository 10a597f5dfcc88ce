// Package wire is the benchmark's HTTP client: one connection, one request at a time, no goroutine of its
// own. net/http's client passes each request between three goroutines, which costs more CPU than the servers
// that share the machine.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Timeout bounds a request, from its first byte to the last one of the answer.
const Timeout = 5 * time.Second

// Conn is a connection to a server. It is not safe for concurrent use. After an error it is closed.
type Conn struct {
	conn counted
	in   *bufio.Reader
	out  []byte
	host string
}

// counted counts the bytes of a connection.
type counted struct {
	net.Conn
	received, sent int64 // bytes
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received += int64(n)
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	return n, err
}

// Answer is a response with its whole body.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	closed bool // the server closes the connection after it
}

// Dial connects to host:port.
func Dial(ctx context.Context, addr string) (*Conn, error) { return DialFrom(ctx, nil, addr) }

// DialFrom connects to host:port from a local address.
func DialFrom(ctx context.Context, from net.Addr, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: Timeout, LocalAddr: from}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := &Conn{conn: counted{Conn: c}, host: addr}
	conn.in = bufio.NewReaderSize(&conn.conn, 16<<10)
	return conn, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Bytes returns how many bytes were received and sent so far, headers included.
func (c *Conn) Bytes() (received, sent int64) { return c.conn.received, c.conn.sent }

// Get asks for a target such as "/post?id=7", with header lines that each end in "\r\n".
func (c *Conn) Get(target, header string) (Answer, error) {
	return c.do(http.MethodGet, target, header, nil)
}

// Post sends a JSON body.
func (c *Conn) Post(target, header string, body []byte) (Answer, error) {
	return c.do(http.MethodPost, target, header+fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body)), body)
}

// Delete sends a DELETE.
func (c *Conn) Delete(target, header string) (Answer, error) {
	return c.do(http.MethodDelete, target, header, nil)
}

func (c *Conn) do(method, target, header string, body []byte) (Answer, error) {
	b := append(c.out[:0], method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.host...)
	b = append(b, "\r\n"...)
	b = append(b, header...)
	b = append(b, "\r\n"...)
	c.out = append(b, body...)
	a, err := c.exchange()
	if err != nil {
		_ = c.Close()
	}
	return a, err
}

func (c *Conn) exchange() (Answer, error) {
	if err := c.conn.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return Answer{}, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return Answer{}, err
	}
	res, err := http.ReadResponse(c.in, nil) // nil stands for a GET; a 204 has no body for any method
	if err != nil {
		return Answer{}, err
	}
	var content []byte
	if n := res.ContentLength; n >= 0 && n <= 16<<20 {
		content = make([]byte, n)
		_, err = io.ReadFull(res.Body, content)
	} else {
		content, err = io.ReadAll(res.Body)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("read the body: %w", err)
	}
	if res.Close {
		_ = c.Close()
	}
	return Answer{Status: res.StatusCode, Header: res.Header, Body: content, closed: res.Close}, nil
}

// Pool is an http.RoundTripper over connections to one server, one for each request in flight. It supports
// requests without a body, and sends none of their headers but Host.
type Pool struct {
	Addr string

	mu     sync.Mutex // guards the fields below
	idle   []*Conn
	closed bool
}

// RoundTrip implements http.RoundTripper. A request that fails is not sent again.
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.Body != nil && r.Body != http.NoBody {
		return nil, errors.New("the pool sends GET requests without a body only")
	}
	c, err := p.take(r.Context())
	if err != nil {
		return nil, err
	}
	a, err := c.Get(r.URL.RequestURI(), "")
	if err != nil {
		return nil, err
	}
	if !a.closed {
		p.put(c)
	}
	return &http.Response{
		Status: fmt.Sprint(a.Status, " ", http.StatusText(a.Status)), StatusCode: a.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)), ContentLength: int64(len(a.Body)), Request: r,
	}, nil
}

func (p *Pool) take(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	return Dial(ctx, p.Addr)
}

func (p *Pool) put(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return
	}
	p.idle = append(p.idle, c)
}

// Close closes the idle connections, and the others when their requests end.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		_ = c.Close()
	}
	p.idle = nil
}
