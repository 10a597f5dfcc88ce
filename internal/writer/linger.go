package writer

import (
	"io"
	"net/http"
	"time"
)

// Bounds of reading and discarding a body after its answer: in all, and of a pause of the client.
const (
	lingerTimeout = 30 * time.Second
	lingerIdle    = 5 * time.Second
)

// linger lets next answer before it has read the body. The answer is sent at once, and then the rest of the body
// is read and dropped for a while: many clients read no answer before they have sent everything, and closing the
// connection while they send would reset it, and lose the answer.
func linger(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		_ = conn.EnableFullDuplex() // HTTP/2 always is
		body := &watchedBody{ReadCloser: r.Body}
		watched := r.WithContext(r.Context()) // the server goes by the body of its own request
		watched.Body = body
		next.ServeHTTP(w, watched)
		if body.ended || !body.begun && r.Header.Get("Expect") != "" { // the client was not asked for its body, and does not send it
			return
		}
		_ = conn.Flush() // if it fails, the client is gone
		scrap := make([]byte, 8<<10)
		for end := time.Now().Add(lingerTimeout); !body.ended && time.Now().Before(end); {
			_ = conn.SetReadDeadline(time.Now().Add(lingerIdle)) // fails on a closed connection, as the read does
			_, _ = body.Read(scrap)
		}
	})
}

// watchedBody notes how far a body was read.
type watchedBody struct {
	io.ReadCloser
	begun, ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.begun, b.ended = true, err != nil
	return n, err
}
