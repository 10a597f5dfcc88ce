package fastlane

import (
	"bytes"
	"container/list"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/loglimit"
)

// maxFiles is used as the limit of open files if the real one is higher or infinite.
const maxFiles = 1 << 20

// places divides the file descriptors of a process. Up to defaultMaxConns connections take perConn of them
// each. The reserve is for connections at the door and for Redis, the listener and the runtime.
func places(files, perConn int) (conns, atDoor int) {
	reserve := min(512, files/2)
	return min(defaultMaxConns, (files-reserve)/perConn), reserve / 2
}

// tooMany is the detail of the answer to a request on a connection beyond the limit.
const tooMany = "there are too many connections: try again later"

// doorTimeout is the timeout for the header of a request at the door.
const doorTimeout = time.Second

// door handles connections beyond the limit: it serves probes and refuses all other requests. The number of
// connections at the door is bounded; when it is exceeded, the oldest connection is closed.
type door struct {
	server *Server
	probes []string // paths that are served
	most   int      // maximum number of connections

	refused  atomic.Int64   // number of connections that were not served
	warnings loglimit.Limit // of the log lines about them

	mu    sync.Mutex // guards conns
	conns *list.List // list of *doorConn, oldest first
}

// doorConn is a connection at the door.
type doorConn struct {
	net.Conn
	door *door
	at   *list.Element
}

func (t *doorConn) Close() error {
	t.door.mu.Lock()
	t.door.conns.Remove(t.at) // a no-op if it has been removed already
	t.door.mu.Unlock()
	return t.Conn.Close()
}

// handle serves or refuses a connection beyond the limit. It does not block.
func (d *door) handle(nc net.Conn) {
	t := &doorConn{Conn: nc, door: d}
	d.mu.Lock()
	var oldest *doorConn
	if d.conns.Len() >= d.most {
		oldest = d.conns.Remove(d.conns.Front()).(*doorConn)
	}
	t.at = d.conns.PushBack(t)
	d.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
	}
	go d.serve(t)
}

func (d *door) serve(t *doorConn) {
	_ = t.SetDeadline(time.Now().Add(doorTimeout))
	header := make([]byte, 0, readBuffer)
	for len(header) < cap(header) && !bytes.Contains(header, []byte("\r\n\r\n")) {
		n, err := t.Read(header[len(header):cap(header)])
		header = header[:len(header)+n]
		if err != nil {
			break
		}
	}
	if d.isProbe(header) {
		_ = t.SetDeadline(time.Time{})
		c := &conn{Conn: t, server: d.server}
		std := newStdConn(c)
		std.unread, std.last = header, true
		d.server.std.push(std)
		return
	}
	d.refused.Add(1)
	d.warnings.Log(d.server.log.Warn, time.Now(), "all connections are taken; new ones are answered with 503: find the clients that hold them, or raise the limit of open files, which allows up to 20,000 connections",
		"max_connections", d.server.maxConns)
	// The connection is not closed immediately: a request that arrives on a closed connection would make the
	// kernel reset it, and the client would lose the answer.
	_ = t.SetDeadline(time.Now().Add(lingerTime))
	_, _ = t.Write(d.server.refuse(nil, http.StatusServiceUnavailable, tooMany, isHead(header)))
	if tcp, ok := t.Conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		for range 64 {
			if _, err := t.Read(header[:cap(header)]); err != nil {
				break
			}
		}
	}
	_ = t.Close()
}

// isProbe reports whether header is the complete header of a request for one of the probes.
func (d *door) isProbe(header []byte) bool {
	method, rest, _ := bytes.Cut(header, []byte(" "))
	path, rest, ok := bytes.Cut(rest, []byte(" "))
	return ok && string(method) == "GET" && slices.Contains(d.probes, string(path)) &&
		bytes.HasPrefix(rest, []byte("HTTP/1.")) && bytes.Contains(rest, []byte("\r\n\r\n"))
}
