package redisnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrTooOld says that a server lacks commands that readers need: EVALSHA_RO came with Redis 7.0. Valkey,
// whose first version was 7.2, always had them.
var ErrTooOld = errors.New("the server is too old, use Redis 7.0, Valkey 7.2 or a newer one")

const leastMajor = 7 // of redis_version, which Valkey has too

// productOf returns what a server is, such as "Redis 7.0.15", or "" where that is hidden. It blocks until
// ctx is done at most.
func productOf(ctx context.Context, c *redis.Client) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if err == nil {
		if product, major := parseProduct(info); product != "" {
			if major < leastMajor {
				return "", fmt.Errorf("%w: this is %s", ErrTooOld, product)
			}
			return product, nil
		}
	} else if !hidden(err) {
		return "", err
	}
	// Redis reports a command that it does not have before it looks at the access list. Any other
	// answer shows that it has this one.
	const noScript = "0000000000000000000000000000000000000000"
	if err := c.EvalShaRO(ctx, noScript, nil).Err(); unknownCommand(err) {
		return "", fmt.Errorf("%w: this one has no EVALSHA_RO", ErrTooOld)
	}
	return "", nil
}

// hidden reports whether err is the answer of a server that does not say what was asked: an access
// list, a managed service, or the embedded Redis refuses it.
func hidden(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") || unknownCommand(err) || err != nil && strings.Contains(err.Error(), "is not supported")
}

func unknownCommand(err error) bool {
	return err != nil && strings.HasPrefix(strings.ToLower(err.Error()), "err unknown command")
}

// parseProduct reads the answer of INFO server. It returns the major version of the Redis that the server
// is compatible with.
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
