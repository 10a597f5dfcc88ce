package cache

import "strings"

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
