package reader

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/cache/store"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// waitBudget is the budget of a reader's reads. It leaves 50 ms of the promised 500 ms for the answer
// itself.
const waitBudget = 450 * time.Millisecond

// maxBehind is how many reads may wait for a version at the same time. A client can ask for versions
// that do not exist, and each such read takes up to waitBudget.
const maxBehind = 256

// source is where a read gets its post from.
type source int

const (
	fromMemory  source = iota // the bytes in memory, as they are; from Redis on a miss
	fromRedis                 // from Redis on every read: a baseline to compare with
	fromMarshal               // from memory, taken apart and put together on every read: another
)

// request is a read of one post, whichever way it came. Its slices belong to the caller.
type request struct {
	id          []byte
	ifMatch     []byte // the header's lines joined by commas; nil without the header
	ifNoneMatch []byte // the same
	minVersion  []byte // the same
}

// answer is what a request gets.
type answer struct {
	status  int
	entry   store.Entry      // of 200 and 304
	etag    string           // of 200 and 304: a part of the entry
	problem *httpkit.Problem // of any other status
	hit     bool             // memory alone had the answer: the caller counts it
}

// getter does the work of a read.
type getter struct {
	replica *replica.Replica
	budget  time.Duration // bounds all waiting of one read
	behind  atomic.Int32  // reads that wait for a version, at most maxBehind
}

// get answers q. It blocks for the budget at most, and only where memory cannot answer.
func (g *getter) get(ctx context.Context, q *request, from source) answer {
	if from == fromRedis {
		return g.ask(ctx, q)
	}
	a, ok := g.look(q)
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

// look answers q from memory, without blocking and, when it is a post, without allocating. It
// returns false when wait must answer.
func (g *getter) look(q *request) (a answer, ok bool) {
	token, problem := q.check()
	if problem != nil {
		return failed(problem), true
	}
	if !g.replica.Reached(token) {
		return answer{}, false
	}
	switch entry, found := g.replica.Get(q.id); found {
	case store.Hit:
		// The id is not looked at: the writer checked that of every post.
		a = q.found(entry)
	case store.Absent:
		a = q.absent()
	default:
		return answer{}, false
	}
	a.hit = true
	return a, true
}

// wait answers q when memory cannot, or not yet. It blocks for the budget at most.
func (g *getter) wait(ctx context.Context, q *request) answer {
	token, problem := q.check()
	if problem != nil {
		return failed(problem)
	}
	if a := q.absent(); a.problem != &notFound {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget)
	defer cancel()
	if !g.replica.Reached(token) {
		defer g.behind.Add(-1)
		if g.behind.Add(1) > maxBehind {
			return failed(&tooManyBehind)
		}
		if g.replica.WaitFor(ctx, token) {
			if a, ok := g.look(q); ok {
				return a
			}
		}
	}
	entry, present, err := g.replica.Fetch(ctx, string(q.id), token)
	if err != nil && !g.replica.Reached(token) {
		return failed(&behind)
	}
	return q.fetched(entry, present, err)
}

// ask answers q from Redis, past the replica, which has every version that there is.
func (g *getter) ask(ctx context.Context, q *request) answer {
	if _, problem := q.check(); problem != nil {
		return failed(problem)
	}
	if a := q.absent(); a.problem != &notFound {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, g.budget)
	defer cancel()
	return q.fetched(g.replica.Direct(ctx, string(q.id)))
}

// check reads the version that q wants at least: the zero token, which any replica has reached,
// when it wants none.
func (q *request) check() (protocol.Token, *httpkit.Problem) {
	if len(q.id) == 0 {
		return protocol.Token{}, &noID
	}
	if q.minVersion == nil {
		return protocol.Token{}, nil
	}
	token, err := protocol.ParseToken(string(q.minVersion))
	if err != nil {
		return protocol.Token{}, &badMinVersion
	}
	return token, nil
}

func (q *request) fetched(entry store.Entry, present bool, err error) answer {
	switch {
	case err != nil:
		return failed(&unavailable)
	case !present:
		return failed(&notFound)
	}
	return q.found(entry)
}

// absent answers a request for what is not there: the id is to blame when it cannot name a post.
func (q *request) absent() answer {
	if err := post.ValidateID(string(q.id)); err != nil {
		return failed(badID(err))
	}
	return failed(&notFound)
}

// found answers with a post, unless a condition of the client says otherwise (RFC 9110, section 13.2.2).
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

// matches reports whether an If-Match or If-None-Match header names etag. A tag with W/ matches in the
// weak comparison alone, which is that of If-None-Match (RFC 9110, sections 13.1.1 and 13.1.2). Where a
// list is malformed the rest of it matches nothing: the client gets the whole post, or none.
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

// The problems of a read. They are not changed.
var (
	noID          = httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" is missing or empty: ask for /post?id=<id of the post>`}
	badMinVersion = httpkit.Problem{Status: http.StatusBadRequest, Field: "X-Min-Version", Detail: "X-Min-Version is not a version: send one X-Version of the writer or a reader, 16 hexadecimal digits, a hyphen and a number"}
	notFound      = httpkit.Problem{Status: http.StatusNotFound, Field: "id", Detail: "there is no post with this id"}
	changed       = httpkit.Problem{Status: http.StatusPreconditionFailed, Field: "If-Match", Detail: "the post has none of these entity tags now: read it without If-Match to get the current one; a weak tag (W/) never matches"}
	notAPost      = httpkit.Problem{Status: http.StatusInternalServerError, Field: "id", Detail: "what is stored under this id is no post: write it again"}
	behind        = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "this reader has not got that version yet, and Redis did not bring it in time: try again, or read without X-Min-Version"}
	tooManyBehind = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "this reader has not got that version yet, and too many reads wait for theirs: try again, or read without X-Min-Version"}
	unavailable   = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "id", Detail: "this read needs Redis, and Redis did not answer in time: try again"}
)

func failed(p *httpkit.Problem) answer { return answer{status: p.Status, problem: p} }

// idOf appends the id in a query to dst. A query without exactly one is a problem.
func idOf(dst []byte, query string) ([]byte, *httpkit.Problem) {
	id, err := httpkit.Param(dst, query, idParameter)
	if err != nil {
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" ` + err.Error()}
	}
	return id, nil
}

// badID is the problem of an id that no post can have. An id that is too long is a wrong parameter
// (400), not too large a body (413).
func badID(err error) *httpkit.Problem {
	p := &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: err.Error()}
	var fe *post.FieldError
	if errors.As(err, &fe) {
		p.Limit = fe.Limit
	}
	return p
}
