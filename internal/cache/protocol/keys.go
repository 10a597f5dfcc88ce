package protocol

import (
	"fmt"
	"strings"
)

// Keys are the names of one shard's keys in Redis. The braces make them fall into one slot of a
// Redis Cluster, so that one script may touch them all.
type Keys struct {
	Seq    string // the version of the last write
	Epoch  string // the epoch, 8 bytes
	Log    string // a stream: one entry a commit, its id is the last version
	Prefix string // of every value's key
}

func NewKeys(namespace string) Keys {
	shard := "{" + namespace + ":0}"
	return Keys{Seq: shard + ":seq", Epoch: shard + ":epoch", Log: shard + ":log", Prefix: shard + ":p:"}
}

// Pattern returns the SCAN pattern of the values' keys.
func (k Keys) Pattern() string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(k.Prefix) + "*"
}

const (
	DefaultChannel   = "posts_updates"
	DefaultNamespace = "posts"
)

// CheckNamespace reports a namespace that cannot be the first part of a key.
func CheckNamespace(namespace string) error {
	if strings.ContainsAny(namespace, "{}") {
		return fmt.Errorf("namespace %q: braces mark the shard, leave them out", namespace)
	}
	return nil
}

// ShardKey returns a key of the shard that namespace uses, for redisnode.Config.Key.
func ShardKey(namespace string) string { return NewKeys(namespace).Seq }
