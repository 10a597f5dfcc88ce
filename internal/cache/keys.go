package cache

import (
	"fmt"
	"strings"
)

// keys are the names of one shard's keys in Redis. The braces make them fall into one slot of a
// Redis Cluster, so that one script may touch them all.
type keys struct {
	seq    string // the version of the last write
	epoch  string // the epoch, 8 bytes
	log    string // a stream: one entry a commit, its id is the last version
	prefix string // of every value's key
}

func newKeys(namespace string) keys {
	shard := "{" + namespace + ":0}"
	return keys{seq: shard + ":seq", epoch: shard + ":epoch", log: shard + ":log", prefix: shard + ":p:"}
}

// pattern returns the SCAN pattern of the values' keys.
func (k keys) pattern() string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(k.prefix) + "*"
}

const (
	defaultChannel   = "posts_updates"
	defaultNamespace = "posts"
)

// CheckNamespace reports a namespace that cannot be the first part of a key.
func CheckNamespace(namespace string) error {
	if strings.ContainsAny(namespace, "{}") {
		return fmt.Errorf("namespace %q: braces mark the shard, leave them out", namespace)
	}
	return nil
}

// ShardKey returns a key of the shard that namespace uses, for redisnode.Config.Key.
func ShardKey(namespace string) string { return newKeys(namespace).seq }
