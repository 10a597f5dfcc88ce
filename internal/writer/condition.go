package writer

import (
	"net/http"
	"strings"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// condition returns the condition that the headers of a write set for the current post. If the condition is malformed
// or no post can satisfy it, condition returns the answer to the request instead.
func condition(h http.Header, mayCreate bool) (c protocol.Condition, problem *httpkit.Problem) {
	ifMatch, ifNoneMatch := h["If-Match"], h["If-None-Match"]
	switch {
	case len(ifMatch) > 0 && len(ifNoneMatch) > 0:
		return c, badHeader("If-None-Match", "cannot be combined with If-Match: send one of them")
	case len(ifNoneMatch) > 0:
		if !mayCreate || !httpkit.AnyETag([]byte(strings.Join(ifNoneMatch, ", "))) {
			return c, badHeader("If-None-Match", "of a write must be *, which creates a post and never replaces one; to change a post that you have read, send its ETag as If-Match")
		}
		return protocol.Condition{Absent: true}, nil
	case len(ifMatch) > 0:
		return ifMatchCondition([]byte(strings.Join(ifMatch, ", ")))
	}
	return c, nil
}

func ifMatchCondition(list []byte) (c protocol.Condition, problem *httpkit.Problem) {
	if httpkit.AnyETag(list) {
		return protocol.Condition{Exists: true}, nil
	}
	none := &preconditionFailed // answer if the list contains no usable tag
	for {
		tag, weak, rest, err := httpkit.NextETag(list)
		if err != nil {
			return c, badHeader("If-Match", err.Error())
		}
		if len(tag) == 0 {
			break
		}
		list = rest
		// If-Match uses the strong comparison, so a weak tag matches nothing (RFC 9110, section 13.1.1). A tag
		// that the writer cannot have made matches no post either.
		sum, ok := post.ParseETag(string(tag))
		switch {
		case weak:
			none = &weakETag
		case ok:
			c.Tags = append(c.Tags, sum)
		}
	}
	if len(c.Tags) == 0 {
		return c, none
	}
	return c, nil
}

var (
	preconditionFailed = httpkit.Problem{Status: http.StatusPreconditionFailed, Detail: "the post does not match If-Match or If-None-Match: read it and try again with its ETag"}
	weakETag           = httpkit.Problem{Status: http.StatusPreconditionFailed, Field: "If-Match", Detail: "If-Match has only weak ETags (with the prefix W/), which never match. A proxy that compresses answers makes ETags weak: send the ETag without W/"}
)

func badHeader(name, reason string) *httpkit.Problem {
	return &httpkit.Problem{Status: http.StatusBadRequest, Field: name, Detail: name + " " + reason}
}
