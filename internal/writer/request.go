package writer

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// readBody returns the body of a request, which is one post as JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *httpkit.Problem) {
	if p := checkType(r.Header, "application/json"); p != nil {
		return nil, p
	}
	tooLarge := &httpkit.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body is too large: send one post", Limit: post.MaxBody}
	if r.ContentLength > post.MaxBody {
		return nil, tooLarge
	}
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead) // with a length, it never grows again
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, post.MaxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, errBusy):
		return nil, &busy
	case err != nil:
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Detail: "the body broke off: send it again"}
	}
	return body.Bytes(), nil
}

// checkType reports a body that does not say that it is of one of the media types. A page on the web can
// send a body without a type, or of the types of forms, to any host without asking.
func checkType(h http.Header, want ...string) *httpkit.Problem {
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &httpkit.Problem{
			Status: http.StatusUnsupportedMediaType,
			Field:  "Content-Encoding",
			Detail: "the body is compressed: send it as it is, without Content-Encoding",
		}
	}
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err == nil && isUTF8(params["charset"]) {
		for _, m := range want {
			if media == m {
				return nil
			}
		}
	}
	return &httpkit.Problem{
		Status: http.StatusUnsupportedMediaType,
		Field:  "Content-Type",
		Detail: "the body has to be " + want[0] + " in UTF-8: send it with Content-Type: " + want[0],
	}
}

// isUTF8 reports whether a charset is UTF-8, which JSON is without one too. Its name has a hyphen, but many
// clients leave that out.
func isUTF8(charset string) bool {
	return charset == "" || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

// decodePut decodes the body of a PUT. The body may leave out the id, which the URL has already.
func decodePut(body []byte, id string) (post.Post, error) {
	p, err := post.Decode(body)
	if blames(err, "id") {
		if q, again := post.Decode(withID(body, id)); !blames(again, "id") {
			return q, again
		}
	}
	if err == nil && p.ID != id {
		err = &post.FieldError{Field: "id", Reason: "is not the id of the URL: leave it out, or send the same"}
	}
	return p, err
}

func blames(err error, field string) bool {
	var fe *post.FieldError
	return errors.As(err, &fe) && fe.Field == field
}

// withID returns body with an id as its first member. If body has an id already, it has two now,
// and cannot be decoded.
func withID(body []byte, id string) []byte {
	open := bytes.IndexByte(body, '{')
	rest := body[open+1:]
	member, err := json.Marshal(id)
	if open < 0 || err != nil {
		return body
	}
	b := append([]byte(`{"id":`), member...)
	if trimmed := bytes.TrimLeft(rest, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '}' {
		b = append(b, ',')
	}
	return append(b, rest...)
}

// parameterID returns the id in the query of a request.
func parameterID(r *http.Request) (string, *httpkit.Problem) {
	id, err := httpkit.Param(nil, r.URL.RawQuery, "id")
	if err != nil {
		return "", &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" ` + err.Error()}
	}
	if err := post.ValidateID(string(id)); err != nil {
		p := refusal(err)
		p.Status = http.StatusBadRequest // too long a parameter is no too large body
		return "", p
	}
	return string(id), nil
}

// refusal is the problem of a post that cannot be taken.
func refusal(err error) *httpkit.Problem {
	p := &httpkit.Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	var fe *post.FieldError
	if errors.As(err, &fe) {
		p.Field, p.Limit = fe.Field, fe.Limit
		if fe.TooLarge {
			p.Status = http.StatusRequestEntityTooLarge
		}
	}
	return p
}
