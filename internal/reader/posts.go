package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"heavy-read-api/internal/cache/replica"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

const postsPath = "/posts"

// maxIDs is the maximum number of ids in one request for postsPath.
const maxIDs = 100

var postsMoving = httpkit.Problem{Status: http.StatusServiceUnavailable, Field: "id", Detail: "the posts could not be read at one version in time: try again, or read fewer posts"}

// servePosts answers GET and HEAD for several posts, all at one version, or for a page if the query has no id. It waits for
// at most the budget.
func (h *handler) servePosts(w http.ResponseWriter, r *http.Request) {
	ids, problem := idsOf(r.URL.RawQuery)
	if problem != nil {
		refuse(w, problem)
		return
	}
	if len(ids) == 0 {
		h.servePage(w, r)
		return
	}
	q := request{id: []byte(ids[0]), minVersion: joined(r.Header["X-Min-Version"]), cookie: cookies(r)}
	min, problem := q.check()
	if problem != nil {
		refuse(w, problem)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.budget)
	defer cancel()
	if !h.replica.Reached(min) {
		defer h.behind.Add(-1)
		if h.behind.Add(1) > maxBehind {
			refuse(w, h.tooManyBehind(min))
			return
		}
	}
	found, at, err := h.replica.GetMany(ctx, ids, min)
	switch {
	case errors.Is(err, replica.ErrNotReached):
		refuse(w, h.notReached(min))
		return
	case err != nil:
		refuse(w, &postsMoving)
		return
	}
	header := w.Header()
	header[headerCaching] = []string{caching}
	header[headerVersion] = []string{at.Token().String()}
	header[headerType] = []string{mediaType}
	h.sendPosts(w, r, ids, found)
}

// sendPosts writes {"posts":[...],"missing":[...]}. The posts are written as they are stored, without a copy.
func (h *handler) sendPosts(w http.ResponseWriter, r *http.Request, ids []string, found []replica.Found) {
	missing := []string{}
	length := 0
	for i := range found {
		if !found[i].Present {
			missing = append(missing, ids[i])
			continue
		}
		defer h.hold(w, found[i].Entry.Value)()
		length += len(found[i].Entry.Value) + len(",")
	}
	end := append(appendJSON([]byte(`],"missing":`), missing), "}\n"...)
	length = len(`{"posts":[`) + max(0, length-len(",")) + len(end)
	w.Header()[headerLength] = []string{strconv.Itoa(length)}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	separator := `{"posts":[`
	for i := range found {
		if found[i].Present {
			_, _ = io.WriteString(w, separator) // writes fail only if the client has disconnected
			_, _ = io.WriteString(w, found[i].Entry.Value)
			separator = ","
		}
	}
	if separator != "," {
		_, _ = io.WriteString(w, separator)
	}
	_, _ = w.Write(end)
}

// idsOf returns the ids in a query, in their order.
func idsOf(query string) (ids []string, problem *httpkit.Problem) {
	err := httpkit.EachParam(query, func(name, value string) error {
		if name != idParameter || problem != nil {
			return nil
		}
		if err := post.ValidateID(value); err != nil {
			problem = badID(err)
		}
		ids = append(ids, value)
		return nil
	})
	switch {
	case err != nil:
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `a parameter ` + err.Error()}
	case problem == nil && len(ids) > maxIDs:
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: fmt.Sprintf("the parameter %q is present %d times: send at most %d", idParameter, len(ids), maxIDs)}
	}
	return ids, problem
}
