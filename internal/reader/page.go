package reader

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unsafe"

	"heavy-read-api/internal/cache/feed"
	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// Bounds of a page.
const (
	defaultLimit = 100     // posts
	maxLimit     = 1000    // posts
	pageBytes    = 1 << 20 // bytes of posts; a page has at least one post
)

// Problems of a page.
var (
	badAfter     = httpkit.Problem{Status: http.StatusBadRequest, Field: "after", Detail: "send \"after\" once, with the value in the page before"}
	badLimit     = httpkit.Problem{Status: http.StatusBadRequest, Field: "limit", Detail: "send a number of posts from 1 to 1000, once"}
	badPageFrom  = httpkit.Problem{Status: http.StatusBadRequest, Field: "since", Detail: "this is not a position: send \"since\" once, with the value in the page before"}
	partial      = httpkit.Problem{Status: http.StatusConflict, Detail: "this reader cannot list the posts, because they do not fit into its memory: raise CACHE_MAX_SIZE, or read posts by their ids"}
	sorting      = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "this reader is sorting the ids, which takes about a second for a million posts: try again"}
	loading      = httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: "this reader does not hold all posts at the moment, because it is loading them or catching up: try again"}
	behindSince  = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "since", Detail: "this reader has not received all that the page before has, and Redis did not deliver it in time: try again"}
	crowdedSince = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "since", Detail: "this reader has not received all that the page before has, and too many reads are already waiting: try again"}
	notChecked   = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "since", Detail: "this position has to be checked with Redis, and Redis did not answer in time: try again"}
	pagesGone    = httpkit.Problem{Status: http.StatusGone, Field: "since", Detail: "Redis has begun another history since the page before, or its log does not show that it has not: begin again with the first page"}
)

// servePage answers GET and HEAD for a part of the posts, in the order of their ids.
func (h *handler) servePage(w http.ResponseWriter, r *http.Request) {
	q, problem := parsePage(r.URL.RawQuery)
	if problem == nil {
		q.min, problem = minOf(joined(r.Header["X-Min-Version"]), cookies(r))
	}
	if problem != nil {
		refuse(w, problem)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.budget)
	defer cancel()
	if problem := h.reach(ctx, &q); problem != nil {
		refuse(w, problem)
		return
	}
	page, err := h.replica.List(ctx, q.after, q.limit, pageBytes, q.since)
	switch {
	case errors.Is(err, replica.ErrPartial):
		refuse(w, &partial)
	case errors.Is(err, replica.ErrSorting):
		refuse(w, &sorting)
	case errors.Is(err, replica.ErrLoading):
		refuse(w, &loading)
	case errors.Is(err, feed.ErrGone):
		refuse(w, &pagesGone)
	case err != nil:
		refuse(w, &notChecked)
	default:
		h.sendPage(w, r, &page)
	}
}

// reach waits until the reader has reached the versions that the request names.
func (h *handler) reach(ctx context.Context, q *pageRequest) *httpkit.Problem {
	var before replica.Min // what the page before has
	if q.since != nil {
		before = replica.AtLeast(q.since.Newest().Token())
	}
	reached := h.replica.Reached(q.min)
	if reached && h.replica.Reached(before) {
		return nil
	}
	defer h.behind.Add(-1)
	switch {
	case h.behind.Add(1) <= maxBehind:
	case reached:
		return &crowdedSince
	default:
		return h.tooManyBehind(q.min)
	}
	if h.replica.Reach(ctx, q.after, q.min) != nil {
		return h.notReached(q.min)
	}
	if h.replica.Reach(ctx, q.after, before) != nil {
		return &behindSince
	}
	return nil
}

// sendPage writes {"posts":[...],"after":...,"since":...}. It copies the posts: otherwise a slow client would keep the slabs
// of all of them in memory.
func (h *handler) sendPage(w http.ResponseWriter, r *http.Request, page *replica.Page) {
	size := len(`{"posts":[],"after":,"since":""}`) + 6*len(page.Last) + 128
	for _, value := range page.Values {
		size += len(value) + len(",")
	}
	body := append(make([]byte, 0, size), `{"posts":[`...)
	for i, value := range page.Values {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, value...)
	}
	body = append(body, `],"after":`...)
	if page.End {
		body = append(body, "null"...)
	} else {
		body = appendJSON(body, page.Last)
	}
	body = append(page.Since.Append(append(body, `,"since":"`...)), "\"}\n"...)
	header := w.Header()
	header[headerCaching] = []string{caching}
	header[headerVersion] = []string{page.Version.String()}
	header[headerType] = []string{mediaType}
	header[headerLength] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		text := unsafe.String(unsafe.SliceData(body), len(body))
		defer h.hold(w, text)()
		_, _ = io.WriteString(w, text) // fails only if the client has disconnected
	}
}

// appendJSON appends a string, or a slice of strings, as JSON to dst.
func appendJSON[T string | []string](dst []byte, v T) []byte {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	lines.SetEscapeHTML(false)
	_ = lines.Encode(v) // strings always marshal
	return append(dst, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

// pageRequest is a request for a page.
type pageRequest struct {
	after string // "" in the first page
	limit int
	since *protocol.Position // nil in the first page
	min   replica.Min
}

func parsePage(query string) (q pageRequest, problem *httpkit.Problem) {
	q.limit = defaultLimit
	seen := map[string]bool{}
	err := httpkit.EachParam(query, func(name, value string) (err error) {
		again := seen[name]
		seen[name] = true
		switch name {
		case "after":
			if q.after = value; again || value != "" && post.ValidateID(value) != nil {
				problem = &badAfter
			}
		case "limit":
			if q.limit, err = strconv.Atoi(value); again || err != nil || q.limit < 1 || q.limit > maxLimit {
				problem = &badLimit
			}
		case "since":
			position, err := protocol.ParsePosition(value)
			if q.since = &position; again || err != nil {
				problem = &badPageFrom
			}
		}
		return nil
	})
	if err != nil {
		problem = &httpkit.Problem{Status: http.StatusBadRequest, Detail: "the query " + err.Error()}
	}
	return q, problem
}
