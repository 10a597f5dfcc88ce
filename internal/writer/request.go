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

// readBody returns the body of a request that carries one post as JSON.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *httpkit.Problem) {
	if p := checkType(r.Header, "application/json"); p != nil {
		return nil, p
	}
	tooLarge := &httpkit.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body is too large: send one post", Limit: post.MaxBody}
	if r.ContentLength > post.MaxBody {
		return nil, tooLarge
	}
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead) // enough for ReadFrom if the length is known
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, post.MaxBody))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, errBusy):
		return nil, &busy
	case err != nil:
		return nil, &httpkit.Problem{Status: http.StatusBadRequest, Detail: "the connection broke before the end of the body: send the request again"}
	}
	return body.Bytes(), nil
}

// checkType returns a problem unless the body is uncompressed and declared as one of the media types in UTF-8. A type is
// required because browsers let any web page send a body without a type, or with a form's type, to another origin.
func checkType(h http.Header, want ...string) *httpkit.Problem {
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &httpkit.Problem{
			Status: http.StatusUnsupportedMediaType,
			Field:  "Content-Encoding",
			Detail: "the body is compressed: send it uncompressed, without Content-Encoding",
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
		Detail: "the body must be " + want[0] + " in UTF-8: send it with Content-Type: " + want[0],
	}
}

// isUTF8 reports whether charset is UTF-8 or empty, which means UTF-8 for JSON. It also accepts "utf8", the spelling of
// many clients.
func isUTF8(charset string) bool {
	return charset == "" || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

// decodePut decodes the body of a PUT. The body may omit the id, because the URL contains it.
func decodePut(body []byte, id string) (post.Post, error) {
	p, err := post.Decode(body)
	if concerns(err, "id") {
		if q, again := post.Decode(withID(body, id)); !concerns(again, "id") {
			return q, again
		}
	}
	if err == nil && p.ID != id {
		err = &post.FieldError{Field: "id", Reason: "differs from the id in the URL: omit it or send the same id"}
	}
	return p, err
}

func concerns(err error, field string) bool {
	var fe *post.FieldError
	return errors.As(err, &fe) && fe.Field == field
}

// withID returns body with id inserted as its first member. If body already has an id, the result has two and cannot be
// decoded.
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

// parameterID returns the value of the query parameter id.
func parameterID(r *http.Request) (string, *httpkit.Problem) {
	id, err := httpkit.Param(nil, r.URL.RawQuery, "id")
	if err != nil {
		return "", &httpkit.Problem{Status: http.StatusBadRequest, Field: "id", Detail: `the parameter "id" ` + err.Error()}
	}
	if err := post.ValidateID(string(id)); err != nil {
		p := refusal(err)
		p.Status = http.StatusBadRequest // 413 is for bodies, not for parameters
		return "", p
	}
	return string(id), nil
}

// refusal returns the answer to a post that is invalid because of err.
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
