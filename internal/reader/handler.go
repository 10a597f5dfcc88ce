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

const (
	postPath    = "/post"
	idParameter = "id"
)

// Names and values of response headers, in the spelling that is sent.
//
// There is no Last-Modified: its resolution is a second, so after two writes within one second a client
// with the older version would get 304.
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
	caching    = "no-cache" // caches may store a post but must revalidate it, which costs no body
	retryAfter = "1"        // seconds
	noSniffing = "nosniff"  // keeps browsers from treating a post as a script or a page
)

// handler answers reads in the std lane, with net/http.
type handler struct {
	*getter
	hold func(w http.ResponseWriter, body string) (release func()) // see fastlane.Server.Hold
}

// serve returns the handler of GET and HEAD for a post.
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
	// Without cancellation, because net/http cancels the context when the client closes its sending side,
	// and such a client still reads the response. The budget bounds the wait, as in the fast lane.
	return h.get(context.WithoutCancel(r.Context()), &request{
		id:          id,
		ifMatch:     joined(r.Header["If-Match"]),
		ifNoneMatch: joined(r.Header["If-None-Match"]),
		minVersion:  joined(r.Header["X-Min-Version"]),
		cookie:      cookies(r),
	}, from)
}

// joined joins the lines of a header by commas. It returns nil if there are none.
func joined(lines []string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, ", "))
}

// cookies joins the lines of Cookie, of which a proxy for HTTP/2 may send several.
func cookies(r *http.Request) []byte {
	return []byte(strings.Join(r.Header["Cookie"], "; "))
}

func (h *handler) send(w http.ResponseWriter, r *http.Request, a *answer) {
	// Header.Set would change the spelling to "Etag".
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
		_, _ = io.WriteString(w, a.entry.Value) // fails only if the client has disconnected
	}
}
