package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// SentinelName is the name under which Sentinels know their primary.
	SentinelName = "posts"

	// settleTimeout bounds the wait for a deployment to agree. A Sentinel takes
	// 10 s to turn an old primary into a replica, and a failed election twice
	// FailoverTimeout to be repeated.
	settleTimeout = 60 * time.Second
	askTimeout    = time.Second // for one node's view: it may be paused
)

// SentinelOptions are how StartSentinel sets up a deployment. The zero value is
// fine.
type SentinelOptions struct {
	// DownAfter is how long a node may be silent before a Sentinel takes it for
	// down, 1 s by default. Unless Quick, that is also the period of the Sentinels'
	// pings, and a busy machine sees failovers nobody asked for; 3 s is calm.
	DownAfter time.Duration
	// FailoverTimeout is how long a failover may take, 5 s by default. After twice
	// that time a failed one is repeated.
	FailoverTimeout time.Duration
	// Quick makes the Sentinels look at the servers and at each other every 0.5 s
	// (SENTINEL DEBUG) instead of every second (ping), 2 s (hello) and 10 s (INFO). The
	// deployment starts sooner, a busy machine does not upset DownAfter,
	// and an old primary is a replica after 3 s instead of 10. It is not for a test
	// of how long a failover takes.
	Quick bool

	All       []Option // for servers and Sentinels: Proxied, TLSOnly
	Servers   []Option // for servers: Password, User, MinReplicas
	Sentinels []Option // for Sentinels: Password, User
}

// SentinelDeployment is a primary with two Redis replicas and three Sentinels
// whose quorum is two. Passwords are those of the default users, as whom the nodes
// log in to each other.
type SentinelDeployment struct {
	t               testing.TB
	servers         []*Server
	sentinels       []*Server
	failoverTimeout time.Duration
}

// monitoring is what a Sentinel is told about the servers.
type monitoring struct {
	primary         *Server
	downAfter       time.Duration
	failoverTimeout time.Duration
	quick           bool
}

// StartSentinel starts a deployment that ends with the test, and returns when it
// is stable.
func StartSentinel(t testing.TB, o SentinelOptions) *SentinelDeployment {
	t.Helper()
	d := &SentinelDeployment{t: t}
	serverOptions := append(append([]Option(nil), o.All...), o.Servers...)
	primary := Start(t, serverOptions...)
	replicaOf := func(opts *options) { opts.primary = primary.Announced() }
	d.servers = []*Server{primary}
	for range 2 {
		d.servers = append(d.servers, Start(t, append(serverOptions, replicaOf)...))
	}
	// A Sentinel asks its primary for replicas at once, and again after 10 s.
	for _, replica := range d.servers[1:] {
		replica.WaitReplicaInSync(primary)
	}

	m := &monitoring{primary: primary, downAfter: o.DownAfter, failoverTimeout: o.FailoverTimeout, quick: o.Quick}
	if m.downAfter == 0 {
		m.downAfter = time.Second
	}
	if m.failoverTimeout == 0 {
		m.failoverTimeout = 5 * time.Second
	}
	d.failoverTimeout = m.failoverTimeout
	sentinelOptions := append(append([]Option(nil), o.All...), o.Sentinels...)
	sentinelOptions = append(sentinelOptions, func(opts *options) { opts.sentinel = m })
	for range 3 {
		s := Start(t, sentinelOptions...)
		id, err := s.command("SENTINEL", "MYID")
		if err != nil {
			t.Fatal(err)
		}
		s.nodeID = id
		d.sentinels = append(d.sentinels, s)
	}
	d.WaitStable()
	return d
}

func (s *Server) sentinelConfig() []string {
	m := s.opts.sentinel
	host, port, _ := net.SplitHostPort(m.primary.Announced())
	lines := []string{
		fmt.Sprintf("sentinel monitor %s %s %s 2", SentinelName, host, port),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", SentinelName, m.downAfter.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s %d", SentinelName, m.failoverTimeout.Milliseconds()),
	}
	if password := m.primary.opts.password; password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", SentinelName, password))
	}
	if s.opts.password != "" {
		lines = append(lines, "sentinel sentinel-pass "+s.opts.password)
	}
	return lines
}

// hurry shortens a Sentinel's periods at each of its starts: it does not keep them.
// The bounds are those of a failover. While the primary is down a Sentinel asks
// its replicas for INFO every second, and promotes none whose answer is older than five
// ping periods. And it demotes a primary that another Sentinel promoted, which
// takes that one over a second to spread, after four periods of publishing.
func (s *Server) hurry() error {
	return s.do(askTimeout, "SENTINEL", "DEBUG", "PING-PERIOD", 500, "PUBLISH-PERIOD", 750, "INFO-PERIOD", 500).Err()
}

// Addrs are the addresses of the Sentinels, for clients.
func (d *SentinelDeployment) Addrs() []string {
	var addrs []string
	for _, s := range d.sentinels {
		addrs = append(addrs, s.Announced())
	}
	return addrs
}

// Servers are the three servers, whatever their roles. The first began as the
// primary.
func (d *SentinelDeployment) Servers() []*Server { return d.servers }

// Sentinels are the three Sentinels. One that was paused for over 2 s sees that
// its clock jumped and starts no failover for 30 s (TILT).
func (d *SentinelDeployment) Sentinels() []*Server { return d.sentinels }

// Primary is the primary as the Sentinels that answer see it: the view with the
// newest epoch wins.
func (d *SentinelDeployment) Primary() *Server {
	d.t.Helper()
	primary, err := d.newest()
	if err != nil {
		d.t.Fatal(err)
	}
	return primary
}

func (d *SentinelDeployment) newest() (*Server, error) {
	var newest sentinelView
	var failures []error
	for _, v := range d.views() {
		switch {
		case v.err != nil:
			failures = append(failures, v.err)
		case newest.primary == nil || v.epoch > newest.epoch:
			newest = v
		}
	}
	if newest.primary == nil {
		return nil, fmt.Errorf("no Sentinel names a primary: %w", errors.Join(failures...))
	}
	return newest.primary, nil
}

// WaitStable waits until all six nodes run, the Sentinels know each other and
// name the same primary, and both replicas are in sync with it.
func (d *SentinelDeployment) WaitStable() {
	d.t.Helper()
	var primary *Server
	settle(d.t, "the Sentinel deployment is not stable", func() error {
		views := d.views()
		primary = views[0].primary
		for _, v := range views {
			switch {
			case v.err != nil:
				return v.err
			case v.unsettled != "":
				return fmt.Errorf("%s: %s", v.sentinel.Addr(), v.unsettled)
			case v.primary != primary || v.epoch != views[0].epoch:
				return fmt.Errorf("%s names %s in epoch %d, %s %s in epoch %d",
					views[0].sentinel.Addr(), primary.Addr(), views[0].epoch, v.sentinel.Addr(), v.primary.Addr(), v.epoch)
			}
		}
		return nil
	})
	for _, s := range d.servers {
		if s != primary {
			s.WaitReplicaInSync(primary)
		}
	}
}

// Failover makes the Sentinels promote a replica while the primary lives
// (SENTINEL FAILOVER), and returns the new primary; see WaitFailover. The old one
// takes writes until it is told, up to 10 s later.
func (d *SentinelDeployment) Failover() *Server {
	d.t.Helper()
	old := d.Primary()
	var asked time.Time
	return d.waitFailover(old, func() error {
		// An aborted failover is not repeated unless the primary is down.
		if time.Since(asked) < 2*d.failoverTimeout {
			return nil
		}
		err := d.requestFailover()
		if err == nil {
			asked = time.Now()
		}
		return err
	})
}

// requestFailover asks the Sentinels in turn until one begins.
func (d *SentinelDeployment) requestFailover() error {
	var failures []error
	for _, s := range d.sentinels {
		err := s.ask(func(ctx context.Context, c *redis.SentinelClient) error {
			return c.Failover(ctx, SentinelName).Err()
		})
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// WaitFailover waits until Primary is another server than old, and returns it.
// Some Sentinels may still name old, for which there is WaitStable.
func (d *SentinelDeployment) WaitFailover(old *Server) *Server {
	d.t.Helper()
	return d.waitFailover(old, func() error { return nil })
}

// waitFailover calls again each time that old is still the primary.
func (d *SentinelDeployment) waitFailover(old *Server, again func() error) *Server {
	d.t.Helper()
	var primary *Server
	settle(d.t, "no failover from "+old.Addr(), func() (err error) {
		primary, err = d.newest()
		if err != nil || primary != old {
			return err
		}
		return errors.Join(errors.New("it is still the primary"), again())
	})
	return primary
}

// Partition cuts the given servers and Sentinels off from all others, without a
// word, while clients still reach both sides. All nodes must be Proxied. Each
// partition adds to those before.
func (d *SentinelDeployment) Partition(nodes ...*Server) {
	d.t.Helper()
	partition(d.t, d.nodes(), nodes)
}

// Heal ends all faults of all proxies.
func (d *SentinelDeployment) Heal() { heal(d.nodes()) }

func (d *SentinelDeployment) nodes() []*Server {
	return append(append([]*Server(nil), d.servers...), d.sentinels...)
}

// sentinelView is what one Sentinel says, or the error that it did not.
type sentinelView struct {
	sentinel  *Server
	primary   *Server // nil with an error
	epoch     int
	unsettled string // why it is not content with what it sees, empty if it is
	err       error
}

// views asks all Sentinels at the same time.
func (d *SentinelDeployment) views() []sentinelView {
	views := make([]sentinelView, len(d.sentinels))
	var all sync.WaitGroup
	for i, s := range d.sentinels {
		all.Go(func() { views[i] = d.view(s) })
	}
	all.Wait()
	return views
}

func (d *SentinelDeployment) view(s *Server) sentinelView {
	v := sentinelView{sentinel: s}
	var addr []string
	var primary map[string]string
	var replicas []map[string]string
	v.err = s.ask(func(ctx context.Context, c *redis.SentinelClient) (err error) {
		if primary, err = c.Master(ctx, SentinelName).Result(); err != nil {
			return err
		}
		if replicas, err = c.Replicas(ctx, SentinelName).Result(); err != nil {
			return err
		}
		// Last, and the one that clients ask for: it may be newer than the epoch, not older.
		addr, err = c.GetMasterAddrByName(ctx, SentinelName).Result()
		return err
	})
	if v.err != nil {
		return v
	}
	v.epoch, v.err = strconv.Atoi(primary["config-epoch"])
	if v.err != nil {
		return v
	}
	v.unsettled = unsettled(primary, replicas, len(d.servers)-1, len(d.sentinels)-1)
	for _, server := range d.servers {
		if server.Announced() == strings.Join(addr, ":") {
			v.primary = server
			return v
		}
	}
	v.err = fmt.Errorf("primary %v of Sentinel %s is none of the servers", addr, s.Addr())
	return v
}

func unsettled(primary map[string]string, replicas []map[string]string, numReplicas, numSentinels int) string {
	if primary["flags"] != "master" {
		return "flags of the primary are " + primary["flags"]
	}
	if primary["num-other-sentinels"] != strconv.Itoa(numSentinels) {
		return "knows " + primary["num-other-sentinels"] + " other Sentinels"
	}
	if len(replicas) != numReplicas {
		return fmt.Sprintf("knows %d replicas", len(replicas))
	}
	for _, r := range replicas {
		// The rest of what it knows of a replica may be 10 s old.
		if r["flags"] != "slave" {
			return fmt.Sprintf("flags of replica %s are %s", r["name"], r["flags"])
		}
	}
	return ""
}

// ask uses a connection of its own for a look at one Sentinel.
func (s *Server) ask(f func(context.Context, *redis.SentinelClient) error) error {
	if err := s.running(); err != nil {
		return err
	}
	c := redis.NewSentinelClient(s.clientOptions())
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if err := f(ctx, c); err != nil {
		return fmt.Errorf("ask Sentinel %s: %w", s.Addr(), err)
	}
	return nil
}

// settle polls f until it returns nil; otherwise says what the test waits for.
func settle(t testing.TB, otherwise string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(settleTimeout)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s after %v: %v", otherwise, settleTimeout, err)
		}
		time.Sleep(4 * pollInterval)
	}
}
