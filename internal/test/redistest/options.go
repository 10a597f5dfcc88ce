package redistest

import (
	"crypto/tls"
	"fmt"
	"math"
	"time"
)

type options struct {
	config   []string // lines for redis.conf, after the defaults, so that they win
	password string   // of the default user
	cluster  clusterMode
	shards   [numShards]int // first slot of each shard of a ClusterDeployment; zero for equal shares
	primary  string         // host:port of the primary at the first start, empty for a primary
	sentinel *monitoring    // nil unless the server is a Sentinel
	port     int            // 0 chooses one

	unixSocket bool
	proxied    bool

	ca         *CA // nil without TLS
	pair       KeyPair
	tlsOnly    bool
	clientAuth bool
	harnessTLS *tls.Config // for the harness's own connections; nil for plain ones
}

// Option changes how Start sets up a server.
type Option func(*options)

// Config adds lines to redis.conf, for example
// "client-output-buffer-limit pubsub 64kb 32kb 1". They win over the defaults.
func Config(lines ...string) Option {
	return func(o *options) { o.config = append(o.config, lines...) }
}

// Password makes clients and replicas log in with a password.
func Password(password string) Option {
	return func(o *options) {
		o.password = password
		o.config = append(o.config, "requirepass "+password, "masterauth "+password)
	}
}

// User adds a user with rules in the ACL language, for example
// "~{posts:*}* +@all". The default user stays, and Client uses it.
func User(name, password, rules string) Option {
	return Config(fmt.Sprintf("user %s on >%s %s", name, password, rules))
}

// Cluster makes the server a Redis Cluster of one node that owns every slot.
func Cluster() Option {
	return func(o *options) { o.cluster = wholeCluster }
}

// FirstSlots sets the first slot of each shard of a ClusterDeployment, in ascending order from 0. By
// default each shard has a third of the slots.
func FirstSlots(slots [numShards]int) Option {
	return func(o *options) { o.shards = slots }
}

// Addresser is a Server, or a proxy in front of one.
type Addresser interface{ Addr() string }

// ReplicaOf makes the server a replica. A proxy as the primary lets a test cut
// or hold up the replication.
func ReplicaOf(primary Addresser) Option {
	return func(o *options) { o.primary = primary.Addr() }
}

// Port fixes the port. It is meant for the port of another Server that has
// ended, so that this one takes over its address: a port of a test's own choice
// can be in use.
func Port(n int) Option {
	return func(o *options) { o.port = n }
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

// UnixSocket adds a Unix socket beside the port; Server.Socket is its path.
func UnixSocket() Option {
	return func(o *options) { o.unixSocket = true }
}
