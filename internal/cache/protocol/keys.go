package protocol

import (
	"fmt"
	"strings"
)

// Keys are the names of one shard's keys in Redis. Their hash tag maps them to one slot of a Redis Cluster, so that one
// script may use all of them.
type Keys struct {
	Seq    string // version of the last write
	Epoch  string // epoch, 8 bytes
	Log    string // stream with one entry for each commit; the entry id is the last version of the commit
	Prefix string // prefix of the keys of values
}

// NewKeys returns the keys of the shard that namespace uses.
func NewKeys(namespace string) Keys {
	shard := "{" + namespace + ":0}"
	return Keys{Seq: shard + ":seq", Epoch: shard + ":epoch", Log: shard + ":log", Prefix: shard + ":p:"}
}

// Pattern returns the SCAN pattern of the values' keys.
func (k Keys) Pattern() string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(k.Prefix) + "*"
}

// Defaults of the Pub/Sub channel and of the first part of every key.
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
