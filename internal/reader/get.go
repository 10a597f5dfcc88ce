package reader

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"
	"unsafe"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// waitBudget bounds how long a read waits in total. It leaves 50 ms of the promised 500 ms for processing.
const waitBudget = 450 * time.Millisecond

// maxBehind limits the reads that wait for X-Min-Version at the same time, because a client can request
// versions that do not exist, and each such read waits for waitBudget.
const maxBehind = 256

// source selects how a read obtains its post.
type source int

const (
	fromMemory  source = iota // the stored bytes from memory, or from Redis on a miss
	fromRedis                 // from Redis on every read; a baseline for benchmarks
	fromMarshal               // from memory, but unmarshalled and marshalled on every read; a baseline too
)

// request is a read of one post, independent of the lane. The caller owns its slices.
type request struct {
	id          []byte
	ifMatch     []byte // If-Match, several lines joined by commas; nil without the header
	ifNoneMatch []byte // If-None-Match, in the same form
	minVersion  []byte // X-Min-Version, in the same form
	cookie      []byte // Cookie, several lines joined by semicolons
}

// answer is the result of a read, independent of the lane.
type answer struct {
	status  int
	entry   store.Entry      // set for 200 and 304
	etag    string           // set for 200 and 304; a substring of entry.Value
	problem *httpkit.Problem // set for all other statuses
	hit     bool             // answered from memory; the caller counts it as a hit
}

// getter answers reads, for both lanes. It is safe for concurrent use.
type getter struct {
	replica *replica.Replica
	budget  time.Duration // bounds how long one read waits in total
	behind  atomic.Int32  // number of reads that wait for X-Min-Version, at most maxBehind
}

// get answers q. If memory has no answer, it blocks for at most the budget.
func (g *getter) get(ctx context.Context, q *request, from source) answer {
	if from == fromRedis {
		return g.getDirect(ctx, q)
	}
	a, ok := g.lookUp(q)
	if !ok {
		a = g.wait(ctx, q)
	}
	if from == fromMarshal && a.problem == nil {
		body, err := post.Remarshal([]byte(a.entry.Value))
		if err != nil {
			return failed(&notAPost)
		}
		a.entry.Value = string(body)
		a.etag = post.ETag(a.entry.Value)
	}
	return a
}

// lookUp answers q from memory. It does not block, and it does not allocate for 200 and 304. It returns
// false if memory has no answer: the caller must call wait then.
func (g *getter) lookUp(q *request) (a answer, ok bool) {
	min, problem := q.check()
	if problem != nil {
		return failed(problem), true
	}
	if !g.replica.Reached(min) {
		return answer{}, false
	}
	return g.fromMemory(q)
}

// fromMemory is lookUp without the checks.
func (g *getter) fromMemory(q *request) (a answer, ok bool) {
	switch entry, found := g.replica.Get(q.id); found {
	case store.Hit:
		// The id needs no validation: the writer validates the id of every post.
		a = q.found(entry)
	case store.Absent:
		a = q.absent()
	default:
		return answer{}, false
	}
	a.hit = true
	return a, true
}

// wait answers q after lookUp has failed: it waits for what the request requires, then fetches the post from
// Redis. It blocks for at most the budget.
func (g *getter) wait(ctx context.Context, q *request) answer {
	min, problem := q.check()
	if problem != nil {
		return failed(problem)
	}
	if a := q.absent(); a.problem != &notFound {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget)
	defer cancel()
	if !g.replica.Reached(min) {
		defer g.behind.Add(-1)
		if g.behind.Add(1) > maxBehind {
			return failed(g.tooManyBehind(min))
		}
		if g.replica.WaitFor(ctx, min) {
			if a, ok := g.fromMemory(q); ok {
				return a
			}
			min = replica.Min{} // an answer of Redis is at least as new as memory
		}
	}
	entry, present, err := g.replica.Fetch(ctx, string(q.id), min)
	if err != nil && !g.replica.Reached(min) {
		return failed(g.notReached(min))
	}
	return q.fetched(entry, present, err)
}

// getDirect answers q from Redis and bypasses memory. What X-Min-Version requires needs no wait, because the primary has
// every write. It blocks for at most the budget.
func (g *getter) getDirect(ctx context.Context, q *request) answer {
	min, problem := q.check()
	if problem != nil {
		return failed(problem)
	}
	if a := q.absent(); a.problem != &notFound {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget)
	defer cancel()
	entry, present, err := g.replica.Direct(ctx, string(q.id), min)
	if err != nil && !g.replica.Reached(min) {
		return failed(g.notReached(min))
	}
	return q.fetched(entry, present, err)
}

// check validates q and returns what its X-Min-Version and its cookie require.
func (q *request) check() (min replica.Min, problem *httpkit.Problem) {
	if len(q.id) == 0 {
		return min, &noID
	}
	return minOf(q.minVersion, q.cookie)
}

// minOf returns what an X-Min-Version and a cookie require. It requires both, because each is a lower bound. A cookie that is
// not a version is ignored: the client does not know that it sends one.
func minOf(minVersion, cookie []byte) (min replica.Min, problem *httpkit.Problem) {
	switch {
	case string(minVersion) == latest:
		min.Latest = true
		return min, nil
	case minVersion != nil:
		at, err := parsePosition(minVersion)
		if err != nil {
			return min, &badMinVersion
		}
		min.Heads[0] = at.Head
	}
	if value := httpkit.CookieValue(cookie, httpkit.VersionCookie); value != nil {
		if at, err := parsePosition(value); err == nil {
			min.Heads[1] = at.Head
		}
	}
	return min, nil
}

// parsePosition is protocol.ParsePosition without an allocation for a position.
func parsePosition(text []byte) (protocol.Position, error) {
	return protocol.ParsePosition(unsafe.String(unsafe.SliceData(text), len(text)))
}

// latest is the value of X-Min-Version that requires every write that was acknowledged before the request.
const latest = "latest"

func (q *request) fetched(entry store.Entry, present bool, err error) answer {
	switch {
	case err != nil:
		return failed(&unavailable)
	case !present:
		return failed(&notFound)
	}
	return q.found(entry)
}

// absent answers a request whose post does not exist: 400 if the id is invalid, else 404.
func (q *request) absent() answer {
	if err := post.ValidateID(string(q.id)); err != nil {
		return failed(badID(err))
	}
	return failed(&notFound)
}

// found answers with a post after evaluating the conditions of the request (RFC 9110, section 13.2.2).
func (q *request) found(entry store.Entry) answer {
	a := answer{status: http.StatusOK, entry: entry, etag: post.ETag(entry.Value)}
	switch {
	case a.etag == "":
		return failed(&notAPost)
	case q.ifMatch != nil && !matches(q.ifMatch, a.etag, false):
		return failed(&changed)
	case q.ifNoneMatch != nil && matches(q.ifNoneMatch, a.etag, true):
		a.status = http.StatusNotModified
	}
	return a
}

// matches reports whether the list of an If-Match or If-None-Match header contains etag. Weak tags (W/)
// match only in the weak comparison, which If-None-Match uses (RFC 9110, sections 13.1.1 and 13.1.2). From
// the first syntax error on, a list matches nothing: the client gets the whole post, or a 412.
func matches(list []byte, etag string, weakly bool) bool {
	if httpkit.AnyETag(list) {
		return true
	}
	for {
		tag, weak, rest, err := httpkit.NextETag(list)
		if err != nil || len(tag) == 0 {
			return false
		}
		if string(tag) == etag && (weakly || !weak) {
			return true
		}
		list = rest
	}
}

// The problems of a read. They are shared and must not be modified.
var (
	noID          = httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" is missing or empty: request /post?id=<id of the post>`}
	badMinVersion = httpkit.Problem{Status: http.StatusBadRequest, Field: "X-Min-Version", Detail: "X-Min-Version is not a version: send the X-Version of an earlier response, 16 hexadecimal digits, a hyphen and a number; or the id of an event; or latest"}
	notFound      = httpkit.Problem{Status: http.StatusNotFound, Field: "id", Detail: "there is no post with this id"}
	changed       = httpkit.Problem{Status: http.StatusPreconditionFailed, Field: "If-Match", Detail: "the current ETag of the post is not in If-Match: read the post without If-Match to get it; a weak tag (W/) never matches"}
	notAPost      = httpkit.Problem{Status: http.StatusInternalServerError, Field: "id", Detail: "the value stored under this id is not a post: write the post again"}
	behind        = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "this reader has not received that version yet, and Redis did not deliver it in time: try again, or read without X-Min-Version"}
	crowded       = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "this reader has not received that version yet, and too many reads are already waiting: try again, or read without X-Min-Version"}
	crowdedCookie = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "Cookie", Detail: "this reader has not received the write that the cookie " + httpkit.VersionCookie + " names yet, and too many reads are already waiting: try again"}
	behindCookie  = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "Cookie", Detail: "this reader has not received the write that the cookie " + httpkit.VersionCookie + " names yet, and Redis did not deliver it in time: try again"}
	notLatest     = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "the latest version is known to Redis only, and Redis did not answer in time, or this reader could not catch up with it in time: try again, or read without X-Min-Version"}
	unavailable   = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "id", Detail: "this read needs Redis, and Redis did not answer in time: try again"}
)

// notReached answers a read whose requirements the replica could not obtain in time.
func (g *getter) notReached(min replica.Min) *httpkit.Problem {
	switch {
	case min.Latest:
		return &notLatest
	case g.onlyCookie(min):
		return &behindCookie
	}
	return &behind
}

// tooManyBehind answers a read that would have to wait while too many others do.
func (g *getter) tooManyBehind(min replica.Min) *httpkit.Problem {
	if g.onlyCookie(min) {
		return &crowdedCookie
	}
	return &crowded
}

// onlyCookie reports whether the replica has reached everything but what the cookie requires.
func (g *getter) onlyCookie(min replica.Min) bool {
	cookie := min.Heads[1]
	min.Heads[1] = protocol.Head{}
	return cookie != protocol.Head{} && g.replica.Reached(min)
}

func failed(p *httpkit.Problem) answer { return answer{status: p.Status, problem: p} }

// idOf appends the id in a query string to dst. It returns a problem unless the query has exactly one.
func idOf(dst []byte, query string) ([]byte, *httpkit.Problem) {
	id, err := httpkit.Param(dst, query, idParameter)
	if err != nil {
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" ` + err.Error()}
	}
	return id, nil
}

// badID returns the problem for an invalid id. Its status is 400 even if the id is too long: 413 is for
// bodies.
func badID(err error) *httpkit.Problem {
	p := &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: err.Error()}
	var fe *post.FieldError
	if errors.As(err, &fe) {
		p.Limit = fe.Limit
	}
	return p
}
