package redistest

import (
	"fmt"
	"math"
	"time"
)

type options struct {
	config   []string // lines appended to redis.conf, where they override the defaults
	password string   // password of the default user
	cluster  clusterMode
	shards   [numShards]int // first slot of each shard of a ClusterDeployment; zero for equal shares
	primary  string         // host:port of the primary at the first start; empty for a primary
	sentinel *monitoring    // nil unless the server is a Sentinel

	unixSocket bool
	proxied    bool

	ca         *CA // nil without TLS
	pair       KeyPair
	clientAuth bool
}

// Option changes how Start sets up a server.
type Option func(*options)

// Config adds lines to redis.conf, for example "client-output-buffer-limit pubsub 64kb 32kb 1". They
// override the defaults.
func Config(lines ...string) Option {
	return func(o *options) { o.config = append(o.config, lines...) }
}

// Password sets the password of the default user, for clients and Redis replicas.
func Password(password string) Option {
	return func(o *options) {
		o.password = password
		o.config = append(o.config, "requirepass "+password, "masterauth "+password)
	}
}

// User adds a user with ACL rules, for example "~{posts:*}* +@all". Client still uses the default user.
func User(name, password, rules string) Option {
	return Config(fmt.Sprintf("user %s on >%s %s", name, password, rules))
}

// Cluster makes the server a Redis Cluster of one node that owns every slot.
func Cluster() Option {
	return func(o *options) { o.cluster = wholeCluster }
}

// FirstSlots sets the first slot of each shard of a ClusterDeployment, in ascending order from 0. By default
// the shards have equal shares.
func FirstSlots(slots [numShards]int) Option {
	return func(o *options) { o.shards = slots }
}

// Addresser is a Server, or a proxy in front of one.
type Addresser interface{ Addr() string }

// ReplicaOf makes the server a Redis replica of primary. If primary is a proxy, the test can inject faults
// into the replication.
func ReplicaOf(primary Addresser) Option {
	return func(o *options) { o.primary = primary.Addr() }
}

// MinReplicas makes the server refuse writes (NOREPLICAS) while fewer than n
// Redis replicas have acknowledged its stream within maxLag, which Redis takes in
// whole seconds, rounded up.
func MinReplicas(n int, maxLag time.Duration) Option {
	return Config(
		fmt.Sprintf("min-replicas-to-write %d", n),
		fmt.Sprintf("min-replicas-max-lag %.0f", math.Ceil(maxLag.Seconds())),
	)
}

// UnixSocket adds a Unix socket; Server.Socket returns its path.
func UnixSocket() Option {
	return func(o *options) { o.unixSocket = true }
}
