package writer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/loglimit"
	"heavy-read-api/internal/post"
)

// handler writes single posts.
type handler struct {
	publisher *publisher.Publisher
	budget    *budget
	metrics   *metrics
	cookie    bool // set httpkit.VersionCookie
	log       *slog.Logger
	failures  loglimit.Limit
	failed    func() // called after each failed write; must not block
}

// success is the answer to a post that was written.
type success struct {
	Status          string `json:"status"` // "success"
	PostID          string `json:"post_id"`
	Hash            string `json:"hash"`
	Version         uint64 `json:"version"`
	PublishDuration string `json:"publish_duration"` // round trip of the script, as a Go duration
}

func (h *handler) serveCreate(w http.ResponseWriter, r *http.Request) {
	p, problem := h.decode(w, r, post.Decode)
	if problem != nil {
		h.refuse(w, opCreate, problem)
		return
	}
	h.set(w, r, p, opCreate)
}

func (h *handler) servePut(w http.ResponseWriter, r *http.Request) {
	id, problem := parameterID(r)
	if problem != nil {
		h.refuse(w, opReplace, problem)
		return
	}
	p, problem := h.decode(w, r, func(body []byte) (post.Post, error) { return decodePut(body, id) })
	if problem != nil {
		h.refuse(w, opReplace, problem)
		return
	}
	h.set(w, r, p, opReplace)
}

func (h *handler) decode(w http.ResponseWriter, r *http.Request, decode func([]byte) (post.Post, error)) (post.Post, *httpkit.Problem) {
	body, problem := readBody(w, r)
	if problem != nil {
		return post.Post{}, problem
	}
	p, err := decode(body)
	if err != nil {
		return post.Post{}, refusal(err)
	}
	return p, nil
}

// set writes a post. op is the operation for the metrics until Redis reports whether the post existed.
func (h *handler) set(w http.ResponseWriter, r *http.Request, p post.Post, op string) {
	c, problem := condition(r.Header, true)
	if problem != nil {
		h.refuse(w, op, problem)
		return
	}
	encoded := p.Encode(time.Now())
	result, took, err := h.write(r, protocol.Write{Op: protocol.Set, Key: p.ID, Value: encoded.Body, Tag: encoded.Sum, If: c})
	if err != nil {
		h.failWrite(w, op, c, err)
		return
	}
	status := http.StatusOK
	switch result.Outcome {
	case protocol.Created:
		op, status = opCreate, http.StatusCreated
		w.Header().Set("Location", "/post?id="+url.QueryEscape(p.ID))
	case protocol.Replaced:
		op = opReplace
	case protocol.ConditionFailed:
		h.refuse(w, op, &preconditionFailed)
		return
	}
	h.metrics.writes.WithLabelValues(op, outcomeOK).Inc()
	etag := string(post.AppendETag(nil, encoded.Sum))
	w.Header()["ETag"] = []string{etag} // Header.Set would write "Etag"
	h.setVersion(w, &result)
	httpkit.JSON(w, status, success{
		Status: "success", PostID: p.ID, Hash: etag[1 : len(etag)-1], Version: result.Token.Version, PublishDuration: took.String(),
	})
}

func (h *handler) serveDelete(w http.ResponseWriter, r *http.Request) {
	id, problem := parameterID(r)
	if problem != nil {
		h.refuse(w, opDelete, problem)
		return
	}
	c, problem := condition(r.Header, false)
	if problem != nil {
		h.refuse(w, opDelete, problem)
		return
	}
	result, _, err := h.write(r, protocol.Write{Op: protocol.Delete, Key: id, If: c})
	if err != nil {
		h.failWrite(w, opDelete, c, err)
		return
	}
	switch result.Outcome {
	case protocol.ConditionFailed:
		h.refuse(w, opDelete, &preconditionFailed)
	case protocol.NotFound:
		h.fail(w, opDelete, outcomeNotFound, &notFound)
	default:
		h.metrics.writes.WithLabelValues(opDelete, outcomeOK).Inc()
		h.setVersion(w, &result)
		w.WriteHeader(http.StatusNoContent)
	}
}

// write blocks for at most the publisher's timeout, and a quarter longer if the reply of Redis is lost. It continues
// after the client has disconnected, because the outcome of an abandoned write would be unknown.
func (h *handler) write(r *http.Request, write protocol.Write) (publisher.Result, time.Duration, error) {
	began := time.Now()
	results, err := h.publisher.Write(context.WithoutCancel(r.Context()), write)
	took := time.Since(began)
	h.metrics.publish.Observe(took.Seconds())
	if err != nil {
		return publisher.Result{}, took, err
	}
	return results[0], took, nil
}

var (
	notFound   = httpkit.Problem{Status: http.StatusNotFound, Field: "id", Detail: "there is no post with this id"}
	unexpected = httpkit.Problem{Status: http.StatusInternalServerError, Detail: "the writer cannot send this write to Redis: nothing was written"}
)

func (h *handler) refuse(w http.ResponseWriter, op string, p *httpkit.Problem) {
	outcome := outcomeRefused
	switch p.Status {
	case http.StatusPreconditionFailed:
		outcome = outcomeConflict
	case http.StatusServiceUnavailable:
		outcome = outcomeBusy
		w.Header().Set("Retry-After", "1")
	}
	h.fail(w, op, outcome, p)
}

// unknown is the answer to a write whose outcome is unknown. The advice depends on the condition, because a conditional
// write that took place fails when it is repeated.
func unknown(op string, c protocol.Condition) *httpkit.Problem {
	advice := "Read the post to find out; sending the same post again is safe"
	switch conditional := c.Exists || len(c.Tags) > 0; {
	case c.Absent:
		advice = "Read the post before you send it again: if it is the one that you sent, this write created it, and a retry would be answered with 412"
	case op == opDelete && conditional:
		advice = "Read the post before you send the request again: if the post is gone, this request may have deleted it, and a retry would be answered with 412"
	case op == opDelete:
		advice = "Sending the request again is safe; a 404 may then mean that the first request deleted the post"
	case conditional:
		advice = "Read the post before you send it again: if it is the one that you sent, this write took place, and a retry would be answered with 412; if it still has the ETag that you sent, send the write again"
	}
	return &httpkit.Problem{
		Status: http.StatusServiceUnavailable,
		Detail: "Redis did not confirm the write in time, and the outcome could not be checked: the write may or may not have taken place, but it cannot take place later. " + advice,
	}
}

func (h *handler) failWrite(w http.ResponseWriter, op string, c protocol.Condition, err error) {
	h.failures.Log(h.log.Warn, time.Now(), "write failed", "op", op, "err", err)
	h.failed()
	switch {
	case errors.Is(err, publisher.ErrNotWritten):
		w.Header().Set("Retry-After", "1")
		h.fail(w, op, outcomeUnavailable, notWritten(err))
	case errors.Is(err, publisher.ErrUnknown):
		w.Header().Set("Retry-After", "1")
		h.fail(w, op, outcomeUnknown, unknown(op, c))
	default:
		h.fail(w, op, outcomeRefused, &unexpected)
	}
}

func (h *handler) fail(w http.ResponseWriter, op, outcome string, p *httpkit.Problem) {
	h.metrics.writes.WithLabelValues(op, outcome).Inc()
	p.WriteTo(w)
}
