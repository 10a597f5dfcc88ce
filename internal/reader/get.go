package reader

import (
	"context"
	"errors"
	"net/http"
	"time"

	"heavy-read-api/internal/cache"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/service"
)

// waitBudget bounds all waiting of one read together. It leaves 50 ms of the promised 500 ms for
// the answer itself.
const waitBudget = 450 * time.Millisecond

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
	ifNoneMatch []byte // the header's lines joined by commas; nil without the header
	minVersion  []byte // the same
}

// answer is what a request gets.
type answer struct {
	status  int
	entry   cache.Entry      // of 200 and 304
	etag    string           // of 200 and 304: a part of the entry
	problem *service.Problem // of any other status
	hit     bool             // memory alone had the answer: the caller counts it
}

// getter does the work of a read.
type getter struct{ replica *cache.Replica }

// get answers q. It blocks for waitBudget at most, and only where memory cannot answer; an answer
// from memory allocates nothing.
func (g *getter) get(ctx context.Context, q *request, from source) answer {
	if len(q.id) == 0 {
		return failed(&noID)
	}
	var token cache.Token
	if q.minVersion != nil {
		var err error
		if token, err = cache.ParseToken(string(q.minVersion)); err != nil {
			return failed(&badMinVersion)
		}
	}
	var a answer
	if from == fromRedis {
		a = g.ask(ctx, q) // which has every version that there is
	} else {
		a = g.look(ctx, q, token)
	}
	if a.status != http.StatusOK {
		return a
	}
	if from == fromMarshal {
		body, err := post.Remarshal([]byte(a.entry.Value))
		if err != nil {
			return failed(&notAPost)
		}
		a.entry.Value = string(body)
	}
	return a.validate(q)
}

// look answers q from memory where that is possible. The zero token is reached by any replica.
func (g *getter) look(ctx context.Context, q *request, token cache.Token) answer {
	if !g.replica.Reached(token) {
		return g.wait(ctx, q, token)
	}
	switch entry, found := g.replica.Get(q.id); found {
	case cache.Hit:
		// The id is not looked at: the writer checked that of every post.
		return answer{status: http.StatusOK, entry: entry, hit: true}
	case cache.Absent:
		a := absent(q)
		a.hit = true
		return a
	default:
		return g.wait(ctx, q, token)
	}
}

// wait answers q when memory cannot, or not yet.
func (g *getter) wait(ctx context.Context, q *request, token cache.Token) answer {
	id := string(q.id)
	if post.ValidateID(id) != nil {
		return absent(q)
	}
	ctx, cancel := context.WithTimeout(ctx, waitBudget)
	defer cancel()
	if !g.replica.Reached(token) {
		if err := g.replica.WaitFor(ctx, token); err != nil {
			return failed(&behind)
		}
		switch entry, found := g.replica.Get(q.id); found {
		case cache.Hit:
			return answer{status: http.StatusOK, entry: entry, hit: true}
		case cache.Absent:
			return answer{status: http.StatusNotFound, problem: &notFound, hit: true}
		}
	}
	entry, present, err := g.replica.Fetch(ctx, id)
	return fetched(entry, present, err)
}

// ask answers q from Redis, past the replica.
func (g *getter) ask(ctx context.Context, q *request) answer {
	id := string(q.id)
	if post.ValidateID(id) != nil {
		return absent(q)
	}
	ctx, cancel := context.WithTimeout(ctx, waitBudget)
	defer cancel()
	entry, present, err := g.replica.Direct(ctx, id)
	return fetched(entry, present, err)
}

func fetched(entry cache.Entry, present bool, err error) answer {
	switch {
	case err != nil:
		return failed(&unavailable)
	case !present:
		return failed(&notFound)
	}
	return answer{status: http.StatusOK, entry: entry}
}

// absent answers a request for what cannot be found: the id is to blame when it cannot name a post.
func absent(q *request) answer {
	if err := post.ValidateID(string(q.id)); err != nil {
		return failed(badID(err))
	}
	return failed(&notFound)
}

// validate adds the ETag to a 200, and turns it into a 304 when the client has the post already.
func (a answer) validate(q *request) answer {
	a.etag = post.ETag(a.entry.Value)
	if a.etag == "" {
		return failed(&notAPost)
	}
	if q.ifNoneMatch != nil && matches(q.ifNoneMatch, a.etag) {
		a.status = http.StatusNotModified
	}
	return a
}

// matches reports whether an If-None-Match header names etag. The comparison is the weak one, so W/
// makes no difference (RFC 9110, section 13.1.2). Where a list is malformed the rest of it matches
// nothing, and the client gets the whole post: too much, but right.
func matches(ifNoneMatch []byte, etag string) bool {
	if service.AnyETag(ifNoneMatch) {
		return true
	}
	for {
		tag, _, rest, err := service.NextETag(ifNoneMatch)
		if err != nil || len(tag) == 0 {
			return false
		}
		if string(tag) == etag {
			return true
		}
		ifNoneMatch = rest
	}
}

// The problems of a read. They are not changed.
var (
	noID          = service.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" is missing or empty: ask for /post?id=<id of the post>`}
	badMinVersion = service.Problem{Status: http.StatusBadRequest, Field: "X-Min-Version", Detail: "X-Min-Version is not a version: send one X-Version of the writer or a reader, 16 hexadecimal digits, a hyphen and a number"}
	notFound      = service.Problem{Status: http.StatusNotFound, Field: "id", Detail: "there is no post with this id"}
	notAPost      = service.Problem{Status: http.StatusInternalServerError, Field: "id", Detail: "what is stored under this id is no post: write it again"}
	behind        = service.Problem{Status: http.StatusServiceUnavailable, Field: "X-Min-Version", Detail: "this reader has not got that version yet, and Redis did not bring it in time: try again, or read without X-Min-Version"}
	unavailable   = service.Problem{Status: http.StatusServiceUnavailable, Field: "id", Detail: "this post is not in the memory of this reader, and Redis did not answer in time: try again"}
)

func failed(p *service.Problem) answer { return answer{status: p.Status, problem: p} }

// badParameter is the problem of a query out of which no id can be taken.
func badParameter(err error) *service.Problem {
	return &service.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" ` + err.Error()}
}

// badID is the problem of an id that no post can have. An id that is too long is a wrong parameter
// (400), not too large a body (413).
func badID(err error) *service.Problem {
	p := &service.Problem{Status: http.StatusBadRequest, Field: "id", Detail: err.Error()}
	var fe *post.FieldError
	if errors.As(err, &fe) {
		p.Limit = fe.Limit
	}
	return p
}
