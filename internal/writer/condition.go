package writer

import (
	"net/http"
	"strings"

	"heavy-read-api/internal/cache"
	"heavy-read-api/internal/post"
	"heavy-read-api/internal/service"
)

// condition returns what the headers of a write demand of the post that is there. never says that
// no post can meet it.
func condition(h http.Header, mayCreate bool) (c cache.Condition, never bool, problem *service.Problem) {
	ifMatch, ifNoneMatch := h["If-Match"], h["If-None-Match"]
	switch {
	case len(ifMatch) > 0 && len(ifNoneMatch) > 0:
		return c, false, badHeader("If-None-Match", "cannot be combined with If-Match: send one of them")
	case len(ifNoneMatch) > 0:
		if !mayCreate || !service.AnyETag([]byte(strings.Join(ifNoneMatch, ", "))) {
			return c, false, badHeader("If-None-Match", "of a write can only be *, which creates a post and replaces none; to change what you have read, send its ETag as If-Match")
		}
		return cache.Condition{Absent: true}, false, nil
	case len(ifMatch) > 0:
		return ifMatchCondition([]byte(strings.Join(ifMatch, ", ")))
	}
	return c, false, nil
}

func ifMatchCondition(list []byte) (c cache.Condition, never bool, problem *service.Problem) {
	if service.AnyETag(list) {
		return cache.Condition{Exists: true}, false, nil
	}
	for {
		tag, weak, rest, err := service.NextETag(list)
		if err != nil {
			return c, false, badHeader("If-Match", err.Error())
		}
		if len(tag) == 0 {
			break
		}
		list = rest
		// The comparison is the strong one: a weak tag matches nothing (RFC 9110, section 13.1.1), and
		// no post has a tag that is not one of ours.
		if sum, ok := post.ParseETag(string(tag)); ok && !weak {
			c.Tags = append(c.Tags, sum)
		}
	}
	return c, len(c.Tags) == 0, nil
}

func badHeader(name, reason string) *service.Problem {
	return &service.Problem{Status: http.StatusBadRequest, Field: name, Detail: name + " " + reason}
}
