package gateway

import (
	"context"
	"io"
	"net/http"
	"time"
)

const changesPath = "/changes"

// changesTimeout is the timeout of the header of an answer to changesPath, and of each read of its body. A reader sends a
// heartbeat every 10 s, and a poll waits for up to 30 s.
const changesTimeout = 60 * time.Second

// past is a deadline that ends a wait.
var past = time.Unix(1, 0)

// follow prepares a request for changesPath, which outlives the server's timeouts. The context ends when the client
// leaves or the gateway drains.
func (h *handler) follow(w http.ResponseWriter, r *http.Request) (ctx context.Context, release func()) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the server's would end the context
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(h.stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// relayStream writes the answer to a request for changesPath and passes every part of the body on at once. A body that
// ends early is truncated, so that the client notices, except when the gateway drains: then it ends like one that the
// reader has ended. Clients of an event stream ignore an event without its empty line.
func (h *handler) relayStream(w http.ResponseWriter, x *exchange) {
	a := &x.answer
	defer a.release()
	conn := a.conn
	defer context.AfterFunc(x.stream, func() { _ = conn.SetDeadline(past) })()
	rc := http.NewResponseController(w)
	a.header.dropField("X-Accel-Buffering") // as nginx does
	writeHeader(w, a)
	buf := make([]byte, upstreamBuffer)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(changesTimeout))
		if x.stream.Err() != nil { // after the deadline, which would undo that of the AfterFunc
			_ = conn.SetReadDeadline(past)
		}
		n, err := a.Read(buf)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(requestTimeout))
			if _, err := w.Write(buf[:n]); err != nil || rc.Flush() != nil {
				panic(http.ErrAbortHandler)
			}
		}
		switch {
		case err == io.EOF:
			return
		case err != nil && h.stopping.Err() != nil && a.left < 0:
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		}
	}
}
