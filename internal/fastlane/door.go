package fastlane

import (
	"bytes"
	"container/list"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// maxFiles caps the process's limit of open files, which may be infinite.
const maxFiles = 1 << 20

// fileLimit returns how many files the process may have open. Package os has raised the soft limit to
// the hard one.
func fileLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > maxFiles {
		return maxFiles
	}
	return int(r.Cur)
}

// places divides the file descriptors of a process: up to defaultMaxConns connections, each of which takes
// perConn of them, some connections at the door, and the rest for Redis, the listener and the runtime.
func places(files, perConn int) (conns, turned int) {
	reserve := min(512, files/2)
	return min(defaultMaxConns, (files-reserve)/perConn), reserve / 2
}

// tooMany is the detail of the answer to a connection that is one too many.
const tooMany = "there are too many connections: try again later"

// turnTime is how long a connection at the door may take to send the header of its request.
const turnTime = time.Second

// door handles connections beyond the limit: it serves probes and refuses everything else. It holds a
// bounded number of connections, and closes the oldest one to admit another.
type door struct {
	server *Server
	probes []string // paths that are served
	most   int      // connections at a time

	mu    sync.Mutex // guards conns
	conns *list.List // of *turned, the oldest first
}

// turned is a connection at the door.
type turned struct {
	net.Conn
	door *door
	at   *list.Element
}

func (t *turned) Close() error {
	t.door.mu.Lock()
	t.door.conns.Remove(t.at) // a no-op once it has been removed
	t.door.mu.Unlock()
	return t.Conn.Close()
}

// turn serves or refuses a connection beyond the limit. It does not block.
func (d *door) turn(nc net.Conn) {
	t := &turned{Conn: nc, door: d}
	d.mu.Lock()
	var oldest *turned
	if d.conns.Len() >= d.most {
		oldest = d.conns.Remove(d.conns.Front()).(*turned)
	}
	t.at = d.conns.PushBack(t)
	d.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
	}
	go d.deal(t)
}

func (d *door) deal(t *turned) {
	_ = t.SetDeadline(time.Now().Add(turnTime))
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
		d.server.std.push(&stdConn{conn: c, unread: header, last: true})
		return
	}
	// Closed at once, a request that is on its way would make the kernel reset the connection before the
	// client has the answer.
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

// isProbe reports whether header is the whole header of a request for one of the probes.
func (d *door) isProbe(header []byte) bool {
	method, rest, _ := bytes.Cut(header, []byte(" "))
	path, rest, ok := bytes.Cut(rest, []byte(" "))
	return ok && string(method) == "GET" && slices.Contains(d.probes, string(path)) &&
		bytes.HasPrefix(rest, []byte("HTTP/1.")) && bytes.Contains(rest, []byte("\r\n\r\n"))
}
