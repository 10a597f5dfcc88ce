package writer

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// Bounds of what clients may have in flight, in bytes of request bodies. The memory behind it is up to five
// times as much: a body, its post, the JSON of that and the frame for Redis. Compose gives the writer 512 MiB.
const (
	maxInFlight = 48 << 20
	maxLarge    = 40 << 20 // part of maxInFlight for bodies above smallBody: slow ones leave room for the others
	smallBody   = 64 << 10
)

// budget counts the bytes of all requests in flight. It is safe for many goroutines.
type budget struct {
	mu         sync.Mutex // guards what follows
	all, large int64
}

// claim is a request's part of the budget. It belongs to one goroutine.
type claim struct {
	budget *budget
	size   int64
}

// resize changes the claim, and reports whether it fits. It never blocks, and making a claim smaller never fails.
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

// errBusy ends the reading of a body that has outgrown the budget.
var errBusy = errors.New("too many bytes are in flight")

var busy = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "nothing was written, because too many large requests are under way: send the request again"}

// admit answers a request for which the budget has no room at once, before its body is read. next runs with the
// others; the claim ends with it.
func (h *handler) admit(op string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &claim{budget: h.budget}
		if r.ContentLength <= post.MaxBody && !c.resize(max(r.ContentLength, 0)) { // a larger body is never read
			h.refuse(w, op, &busy)
			return
		}
		defer c.resize(0)
		r.Body = &claimedBody{ReadCloser: r.Body, claim: c}
		next(w, r)
	}
}

// claimedBody extends the claim of a body that does not say how long it is.
type claimedBody struct {
	io.ReadCloser
	claim *claim
	read  int64 // bytes
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
