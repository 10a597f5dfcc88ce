package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// SentinelName is the name under which the Sentinels monitor the primary.
	SentinelName = "posts"

	// settleTimeout bounds each wait for a deployment. A Sentinel demotes an old
	// primary after 10 s, and repeats a failed election after twice
	// FailoverTimeout.
	settleTimeout = 60 * time.Second
	askTimeout    = time.Second // bound of one question to a node, which may be paused
)

// SentinelOptions configure a SentinelDeployment. The zero value selects the
// defaults.
type SentinelOptions struct {
	// DownAfter is how long a node may be silent before a Sentinel considers it
	// down; 1 s by default. Without Quick the Sentinels ping once a second, so that
	// 1 s causes needless failovers on a busy machine; 3 s does not.
	DownAfter time.Duration
	// FailoverTimeout bounds a failover; 5 s by default. A failed failover is
	// repeated after twice that time.
	FailoverTimeout time.Duration
	// Quick shortens the Sentinels' periods by SENTINEL DEBUG: to 0.5 s for pings
	// (1 s), 0.75 s for their hello messages (2 s) and 0.5 s for INFO (10 s). The
	// deployment starts sooner, and an old primary becomes a replica after 3 s
	// instead of 10 s. Do not use it to measure how long a failover takes.
	Quick bool

	All       []Option // for servers and Sentinels, such as Proxied and TLSOnly
	Servers   []Option // for servers, such as Password, User and MinReplicas
	Sentinels []Option // for Sentinels, such as Password and User
}

// SentinelDeployment is a primary with two Redis replicas and three Sentinels with
// a quorum of two. The nodes log in to each other as the default user, with the
// passwords of the options.
type SentinelDeployment struct {
	t               testing.TB
	servers         []*Server
	sentinels       []*Server
	failoverTimeout time.Duration
}

// monitoring is a Sentinel's configuration.
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
	// A Sentinel that starts before the replicas are connected finds them 10 s later.
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

// hurry shortens the periods of a Sentinel, which does not keep them over a restart.
// Shorter ones would break failovers:
//   - While the primary is down, INFO of the replicas is refreshed every second, and
//     a replica whose INFO is older than five ping periods is not promoted.
//   - A Sentinel demotes a primary that another Sentinel has promoted, unless it
//     learns of that within four hello periods. The news can take over a second.
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

// Servers returns the three servers, whatever their roles. The first one started as
// the primary.
func (d *SentinelDeployment) Servers() []*Server { return d.servers }

// Sentinels returns the three Sentinels. One that was paused for more than 2 s starts
// no failover for 30 s after it resumes (TILT mode).
func (d *SentinelDeployment) Sentinels() []*Server { return d.sentinels }

// Primary returns the primary according to the Sentinels that answer; the newest
// epoch wins.
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

// WaitStable waits until all six nodes run, the Sentinels have found each other and
// agree on the primary, and both replicas are in sync with it. It waits at most a
// minute, as all methods here do.
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
// accepts writes until it is demoted, up to 10 s later.
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
// Some Sentinels may still name old; WaitStable waits for all.
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

// Partition drops everything between the given servers and Sentinels and all
// others, without closing connections. Clients still reach both sides. All nodes must
// be Proxied. A second partition adds to the first.
func (d *SentinelDeployment) Partition(nodes ...*Server) {
	d.t.Helper()
	partition(d.t, d.nodes(), nodes)
}

// Heal ends all faults of all proxies, including those that the test set itself.
func (d *SentinelDeployment) Heal() { heal(d.nodes()) }

func (d *SentinelDeployment) nodes() []*Server {
	return append(append([]*Server(nil), d.servers...), d.sentinels...)
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
