package protocol

import (
	"strings"

	"github.com/redis/go-redis/v9"
)

// Denied reports whether err means that the access list of Redis does not permit a command. For a command in a script,
// Redis 7.0 and Redis 7.2 return a text of their own instead of NOPERM.
func Denied(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") ||
		err != nil && (strings.Contains(err.Error(), "The user executing the script can't") || strings.Contains(err.Error(), "ACL failure in script"))
}
