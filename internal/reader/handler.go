package reader

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/post"
)

// The path of a post, and the parameter that names it.
const (
	postPath    = "/post"
	idParameter = "id"
)

// Names and values of the headers of a read, as they are sent.
//
// There is no Last-Modified. It counts in seconds: a client that read a post, and asks again after a
// second write in the same second, would be told that it has the newest.
const (
	headerType       = "Content-Type"
	headerLength     = "Content-Length"
	headerCaching    = "Cache-Control"
	headerETag       = "ETag"
	headerRetryAfter = "Retry-After"
	headerVersion    = "X-Version"
	headerServedBy   = "X-Served-By"
	headerSniffing   = "X-Content-Type-Options"

	mediaType  = "application/json"
	caching    = "no-cache" // kept by who likes, asked for again each time: with If-None-Match that costs no body
	retryAfter = "1"        // seconds
	noSniffing = "nosniff"  // browsers take the media type as it is: a post is no script and no page
)

// handler answers reads with net/http.
type handler struct {
	*getter
	hold func(w http.ResponseWriter, body string) (release func()) // see fastlane.Server.Hold
}

// serve answers GET and HEAD of a post.
func (h *handler) serve(from source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := h.answer(r, from)
		if a.hit {
			h.replica.CountHits(1)
		}
		h.send(w, r, &a)
	}
}

func (h *handler) answer(r *http.Request, from source) answer {
	id, problem := idOf(make([]byte, 0, post.MaxID), r.URL.RawQuery)
	if problem != nil {
		return failed(problem)
	}
	// net/http cancels the request's context when the client closes its sending side, and such a client
	// still reads. All waiting is bounded without it, as in the fast lane.
	return h.get(context.WithoutCancel(r.Context()), &request{
		id:          id,
		ifMatch:     joined(r.Header["If-Match"]),
		ifNoneMatch: joined(r.Header["If-None-Match"]),
		minVersion:  joined(r.Header["X-Min-Version"]),
	}, from)
}

// joined returns the value of a header that may come in several lines; nil when there is none.
func joined(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, ", "))
}

func (h *handler) send(w http.ResponseWriter, r *http.Request, a *answer) {
	// Not Header.Set, which would write "Etag".
	header := w.Header()
	if a.problem != nil {
		if a.status == http.StatusServiceUnavailable {
			header[headerRetryAfter] = []string{retryAfter}
		}
		a.problem.WriteTo(w)
		return
	}
	header[headerETag] = []string{a.etag}
	header[headerCaching] = []string{caching}
	header[headerVersion] = []string{protocol.Token{Epoch: a.entry.Epoch, Version: a.entry.Version}.String()}
	if a.status == http.StatusNotModified {
		w.WriteHeader(a.status)
		return
	}
	header[headerType] = []string{mediaType}
	header[headerLength] = []string{strconv.Itoa(len(a.entry.Value))}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		defer h.hold(w, a.entry.Value)()
		_, _ = io.WriteString(w, a.entry.Value) // a client that is gone cannot be told
	}
}
