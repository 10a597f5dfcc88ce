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

// redisRefusals maps the prefixes of the errors with which Redis refuses writes to advice for the operator.
var redisRefusals = []struct{ prefix, advice string }{
	{"OOM", "Redis is out of memory: raise its maxmemory, or delete posts, which still works"},
	{"MISCONF", "Redis cannot write to its disk: check its log and the free space"},
	{"NOREPLICAS", "the Redis primary has lost its Redis replicas: bring one back, or set REDIS_MIN_REPLICAS=0"},
}

// advice returns the advice to the operator for a refusal, "" if there is none.
func advice(err error) string {
	if protocol.Denied(err) {
		return "the access list of Redis does not permit the writer to write: grant its user the missing commands, keys or channel"
	}
	for _, r := range redisRefusals {
		if redis.HasErrorPrefix(err, r.prefix) {
			return r.advice
		}
	}
	return ""
}

// isFormat reports whether err means that the posts in Redis have another format.
func isFormat(err error) bool {
	var format *publisher.FormatError
	return errors.As(err, &format)
}

// unready returns the status and the reason that /ready reports when the check of Redis failed with err.
func unready(err error) (status, reason string) {
	reason = err.Error()
	if at := strings.LastIndex(reason, " script: "); at >= 0 {
		reason = reason[:at] // cut off the script's digest and line
	}
	if advice := advice(err); advice != "" {
		return "no writes", advice + " (" + reason + ")"
	}
	if isFormat(err) {
		return "no writes", reason
	}
	var answer redis.Error
	if errors.As(err, &answer) || errors.Is(err, redisnode.ErrNotPrimary) {
		return "no writes", "Redis accepts no writes: " + reason
	}
	return statusNoRedis, "Redis does not answer: " + reason
}

// notWritten is the answer to a write that failed with err before it took place.
func notWritten(err error) *httpkit.Problem {
	detail := "nothing was written, because Redis accepts no writes: send the request again"
	if advice := advice(err); advice != "" {
		detail = "nothing was written: " + advice
	} else if errors.Is(err, redisnode.ErrNotPrimary) || redis.HasErrorPrefix(err, "READONLY") {
		detail = "nothing was written, because the Redis server is not a primary: send the request again once a primary is available"
	}
	return &httpkit.Problem{Status: http.StatusServiceUnavailable, Detail: detail}
}
