package redisnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// errTooOld means that the server lacks EVALSHA_RO, which readers need. Redis has had it since 7.0, and Valkey
// since its first release, 7.2.
var errTooOld = errors.New("the server is too old, use Redis 7.0, Valkey 7.2 or a newer one")

const leastMajor = 7 // lowest accepted major version in redis_version, which Valkey reports too

// productOf returns the name and version of a server, such as "Redis 7.0.15", or "" if it refuses INFO. It
// blocks until the replies arrive or ctx is done.
func productOf(ctx context.Context, c *redis.Client) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if err == nil {
		if product, major := parseProduct(info); product != "" {
			if major < leastMajor {
				return "", fmt.Errorf("%w: this is %s", errTooOld, product)
			}
			return product, nil
		}
	} else if !hidden(err) {
		return "", err
	}
	// Redis checks that a command exists before it checks the ACL, so every error but "unknown command"
	// proves that the server has it.
	const noScript = "0000000000000000000000000000000000000000"
	if err := c.EvalShaRO(ctx, noScript, nil).Err(); unknownCommand(err) {
		return "", fmt.Errorf("%w: this one has no EVALSHA_RO", errTooOld)
	}
	return "", nil
}

// hidden reports whether err means that the server does not provide the requested information: because of
// an ACL, a managed service's restrictions, or the limits of the embedded Redis.
func hidden(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") || unknownCommand(err) || err != nil && strings.Contains(err.Error(), "is not supported")
}

func unknownCommand(err error) bool {
	return err != nil && strings.HasPrefix(strings.ToLower(err.Error()), "err unknown command")
}

// parseProduct parses the reply of INFO server. major is the major version of the Redis release that the
// server is compatible with.
func parseProduct(info string) (product string, major int) {
	fields := ParseInfo(info)
	compatible := fields["redis_version"]
	first, _, _ := strings.Cut(compatible, ".")
	major, err := strconv.Atoi(first)
	switch valkey := fields["valkey_version"]; {
	case err != nil:
		return "", 0
	case valkey != "":
		return "Valkey " + valkey, major
	}
	return "Redis " + compatible, major
}
