package redistest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Contents returns all keys and values of a server in a comparable form. It fails the test if the server does not
// answer.
func Contents(t testing.TB, c redis.Cmdable) string {
	t.Helper()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	var all []string
	for _, key := range keys {
		dump, err := c.Dump(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s=%q", key, dump))
	}
	return strings.Join(all, "\n")
}
