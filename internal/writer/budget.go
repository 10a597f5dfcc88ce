package writer

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// Limits for the bodies of all requests in flight, in bytes. A request needs up to five times the size of its body: for
// the body, the decoded post, its JSON and the frame for Redis. Compose gives the writer 512 MiB.
const (
	maxInFlight = 48 << 20
	maxLarge    = 40 << 20 // limit for bodies above smallBody, so that slow large requests leave room for small ones
	smallBody   = 64 << 10
)

// budget accounts for the bodies of all requests in flight. It is safe for concurrent use.
type budget struct {
	mu         sync.Mutex // guards the rest
	all, large int64      // bytes claimed by all requests, and by those above smallBody
}

// claim is the share of a request in the budget. One goroutine uses it at a time.
type claim struct {
	budget *budget
	size   int64 // bytes
}

// resize changes the size of the claim and reports whether the budget has room for it. It never blocks. Shrinking a
// claim always succeeds.
func (c *claim) resize(size int64) bool {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	all, large := c.budget.all+size-c.size, c.budget.large+largeBytes(size)-largeBytes(c.size)
	if size > c.size && (all > maxInFlight || large > maxLarge) {
		return false
	}
	c.budget.all, c.budget.large, c.size = all, large, size
	return true
}

func largeBytes(size int64) int64 {
	if size <= smallBody {
		return 0
	}
	return size
}

// errBusy is the read error of a body for which the budget has no room.
var errBusy = errors.New("too many bytes are in flight")

var busy = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "nothing was written, because too many large requests are in flight: send the request again"}

// admit calls next if the budget has room for the request, and holds the claim until next returns. Otherwise it refuses
// the request before its body is read.
func (h *handler) admit(op string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &claim{budget: h.budget}
		if r.ContentLength <= post.MaxBody && !c.resize(max(r.ContentLength, 0)) { // readBody refuses a larger body unread
			h.refuse(w, op, &busy)
			return
		}
		defer c.resize(0)
		r.Body = &claimedBody{ReadCloser: r.Body, claim: c}
		next(w, r)
	}
}

// claimedBody enlarges the claim while a body without a Content-Length is read.
type claimedBody struct {
	io.ReadCloser
	claim *claim
	read  int64 // bytes read so far
}

func (b *claimedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read += int64(n); b.read > b.claim.size {
		size := int64(smallBody)
		if b.read > smallBody {
			size = post.MaxBody
		}
		if !b.claim.resize(size) {
			return 0, errBusy
		}
	}
	return n, err
}
