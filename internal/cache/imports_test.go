package cache

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The packages of the cache stay apart: the wire format is independent of the store, the store of Redis, and neither the
// publisher nor the writer links the memory of a replica.
func TestImports(t *testing.T) {
	const (
		ristretto = "github.com/dgraph-io/ristretto/v2"
		goRedis   = "github.com/redis/go-redis/v9"
		cache     = "heavy-read-api/internal/cache/"
	)
	for pkg, forbidden := range map[string][]string{
		cache + "protocol":      {ristretto, cache + "store", cache + "replica", cache + "publisher"},
		cache + "store":         {goRedis, cache + "protocol", cache + "replica", cache + "publisher"},
		cache + "snapfile":      {ristretto, goRedis, cache + "protocol", cache + "store", cache + "replica"},
		cache + "keyset":        {ristretto, goRedis, cache + "protocol", cache + "store", cache + "replica"},
		cache + "feed":          {ristretto, cache + "store", cache + "replica", cache + "publisher"},
		cache + "publisher":     {ristretto, cache + "store", cache + "replica"},
		cache + "replica":       {cache + "publisher"},
		"heavy-read-api/writer": {ristretto, cache + "store", cache + "replica"},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", pkg, err)
		}
		deps := strings.Fields(string(out))
		for _, f := range forbidden {
			if slices.Contains(deps, f) {
				t.Errorf("%s depends on %s", pkg, f)
			}
		}
	}
}
