package writer

import (
	"io"
	"net/http"
	"time"
)

// Bounds for discarding the rest of a body after its answer.
const (
	lingerTimeout = 30 * time.Second // total time
	lingerIdle    = 5 * time.Second  // time without a byte from the client
)

// linger lets next answer before it has read the whole body. The answer is sent immediately, and then the rest of the
// body is read and discarded: many clients read no answer until they have sent everything, and if the connection were
// closed while they send, the kernel would reset it and the client would lose the answer.
func linger(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		_ = conn.EnableFullDuplex() // fails for HTTP/2, which is always full duplex
		body := &watchedBody{ReadCloser: r.Body}
		watched := r.WithContext(r.Context()) // a copy: the server still uses the Body of its own request
		watched.Body = body
		next.ServeHTTP(w, watched)
		if body.ended || !body.begun && r.Header.Get("Expect") != "" { // without a 100 Continue the client sends no body
			return
		}
		_ = conn.Flush() // fails only if the client is gone
		discard := make([]byte, 8<<10)
		for end := time.Now().Add(lingerTimeout); !body.ended && time.Now().Before(end); {
			_ = conn.SetReadDeadline(time.Now().Add(lingerIdle)) // fails on a closed connection, as the read does
			_, _ = body.Read(discard)
		}
	})
}

// watchedBody records whether reading has begun and whether it has ended.
type watchedBody struct {
	io.ReadCloser
	begun, ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.begun, b.ended = true, err != nil
	return n, err
}
