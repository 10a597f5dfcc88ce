package writer

import (
	"errors"
	"net/http"
	"strings"

	"github.com/redis/go-redis/v9"

	"heavy-read-api/internal/cache/protocol"
	"heavy-read-api/internal/cache/publisher"
	"heavy-read-api/internal/httpkit"
	"heavy-read-api/internal/redisnode"
)

// redisRefusals are the prefixes of errors with which Redis refuses writes, and what an operator can do.
var redisRefusals = []struct{ prefix, advice string }{
	{"OOM", "Redis is out of memory: raise its maxmemory, or delete posts, which still works"},
	{"MISCONF", "Redis cannot write to its disk: its log says why, often there is no space left"},
	{"NOREPLICAS", "the Redis primary has lost its Redis replicas: bring one back, or set REDIS_MIN_REPLICAS=0"},
}

// advice returns what an operator can do about a refusal, "" where there is nothing to add.
func advice(err error) string {
	if protocol.Denied(err) {
		return "the access list of Redis does not let the writer write: add the commands, keys and channel that it lacks"
	}
	for _, r := range redisRefusals {
		if redis.HasErrorPrefix(err, r.prefix) {
			return r.advice
		}
	}
	return ""
}

// isFormat reports whether err says that posts in Redis have another format.
func isFormat(err error) bool {
	var format *publisher.FormatError
	return errors.As(err, &format)
}

// unready returns the status of a writer whose Redis refuses writes with err, and the reason in words.
func unready(err error) (status, reason string) {
	reason = err.Error()
	if at := strings.LastIndex(reason, " script: "); at >= 0 {
		reason = reason[:at] // behind it are the script's digest and line
	}
	if advice := advice(err); advice != "" {
		return "no writes", advice + " (" + reason + ")"
	}
	if isFormat(err) {
		return "no writes", reason
	}
	var answer redis.Error
	if errors.As(err, &answer) || errors.Is(err, redisnode.ErrNotPrimary) {
		return "no writes", "Redis takes no writes: " + reason
	}
	return statusNoRedis, "Redis does not answer: " + reason
}

// notWritten is the answer to a write that Redis has refused with err.
func notWritten(err error) *httpkit.Problem {
	detail := "nothing was written, because Redis cannot take writes: send the request again"
	if advice := advice(err); advice != "" {
		detail = "nothing was written: " + advice
	} else if errors.Is(err, redisnode.ErrNotPrimary) || redis.HasErrorPrefix(err, "READONLY") {
		detail = "nothing was written, because the Redis server is not a primary: send the request again when there is one"
	}
	return &httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: detail}
}
