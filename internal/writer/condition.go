package writer

import (
	"net/http"
	"strings"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/post"
)

// condition returns what the headers of a write demand of the post that is there, or the answer to a
// condition that is malformed or that no post can meet.
func condition(h http.Header, mayCreate bool) (c protocol.Condition, problem *httpkit.Problem) {
	ifMatch, ifNoneMatch := h["If-Match"], h["If-None-Match"]
	switch {
	case len(ifMatch) > 0 && len(ifNoneMatch) > 0:
		return c, badHeader("If-None-Match", "cannot be combined with If-Match: send one of them")
	case len(ifNoneMatch) > 0:
		if !mayCreate || !httpkit.AnyETag([]byte(strings.Join(ifNoneMatch, ", "))) {
			return c, badHeader("If-None-Match", "of a write can only be *, which creates a post and replaces none; to change what you have read, send its ETag as If-Match")
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
	none := &preconditionFailed // why no tag is left
	for {
		tag, weak, rest, err := httpkit.NextETag(list)
		if err != nil {
			return c, badHeader("If-Match", err.Error())
		}
		if len(tag) == 0 {
			break
		}
		list = rest
		// The comparison is the strong one: a weak tag matches nothing (RFC 9110, section 13.1.1), and
		// no post has a tag that is not one of ours.
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
	preconditionFailed = httpkit.Problem{Status: http.StatusPreconditionFailed, Detail: "the post is not the one that If-Match or If-None-Match names: read it, and try again with its ETag"}
	weakETag           = httpkit.Problem{Status: http.StatusPreconditionFailed, Field: "If-Match", Detail: "If-Match has only weak ETags (W/ in front), which never match: something between you and the reader made them weak, a gateway that compresses for instance. Send the ETag without W/"}
)

func badHeader(name, reason string) *httpkit.Problem {
	return &httpkit.Problem{Status: http.StatusBadRequest, Field: name, Detail: name + " " + reason}
}
