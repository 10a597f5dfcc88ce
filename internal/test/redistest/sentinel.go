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
	// SentinelName is the name of the primary in the Sentinels' configuration.
	SentinelName = "posts"

	// settleTimeout bounds each wait for a deployment. A Sentinel demotes an old primary after 10 s, and
	// repeats a failed election after twice FailoverTimeout.
	settleTimeout = 60 * time.Second
	queryTimeout  = time.Second // bounds a query to a node, which may be paused
)

// SentinelOptions configure a SentinelDeployment. The zero value selects the
// defaults.
type SentinelOptions struct {
	// DownAfter is the silence after which a Sentinel considers a node down; 1 s by default. Without Quick
	// the Sentinels ping once a second, so 1 s causes needless failovers on a busy machine; 3 s does not.
	DownAfter time.Duration
	// FailoverTimeout bounds a failover; 5 s by default. A failed failover is repeated after twice that time.
	FailoverTimeout time.Duration
	// Quick shortens the Sentinels' periods with SENTINEL DEBUG: pings from 1 s to 0.5 s, hello messages from
	// 2 s to 0.75 s and INFO from 10 s to 0.5 s. The deployment starts sooner, and an old primary is demoted
	// after 3 s instead of 10 s. Do not use it in measurements of failovers.
	Quick bool

	All       []Option // for servers and Sentinels, such as Proxied
	Servers   []Option // for servers, such as Password, User and MinReplicas
	Sentinels []Option // for Sentinels, such as Password and User
}

// SentinelDeployment is a primary with two Redis replicas and three Sentinels with a quorum of two. The
// nodes authenticate to each other as the default user, with the passwords of the options.
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

// StartSentinel starts a deployment and blocks until it is stable. It is stopped when the test ends.
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
	// A Sentinel that starts before the replicas are connected discovers them only 10 s later.
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

// shortenPeriods shortens the periods of a Sentinel, which loses them at a restart. Shorter ones would break
// failovers:
//   - While the primary is down, the INFO of a replica is refreshed every second, and a replica whose INFO is
//     older than five ping periods is not promoted.
//   - A Sentinel demotes a primary that another Sentinel has promoted unless it learns of the promotion within
//     four hello periods, and that can take more than a second.
func (s *Server) shortenPeriods() error {
	return s.do(queryTimeout, "SENTINEL", "DEBUG", "PING-PERIOD", 500, "PUBLISH-PERIOD", 750, "INFO-PERIOD", 500).Err()
}

// Addrs returns the addresses of the Sentinels, for clients.
func (d *SentinelDeployment) Addrs() []string {
	var addrs []string
	for _, s := range d.sentinels {
		addrs = append(addrs, s.Announced())
	}
	return addrs
}

// Servers returns all three servers, in any role. The first one started as the primary.
func (d *SentinelDeployment) Servers() []*Server { return d.servers }

// Sentinels returns the three Sentinels. A Sentinel that was paused for more than 2 s starts no failover in
// the 30 s after it resumes (TILT mode).
func (d *SentinelDeployment) Sentinels() []*Server { return d.sentinels }

// Primary returns the primary according to the reachable Sentinel with the newest epoch.
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
		return nil, fmt.Errorf("no Sentinel reports a primary: %w", errors.Join(failures...))
	}
	return newest.primary, nil
}

// WaitStable waits until all six nodes run, the Sentinels have discovered each other and agree on the
// primary, and both Redis replicas are in sync with it. Like all waits of a deployment it stops the test
// after a minute.
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
				return fmt.Errorf("%s reports %s in epoch %d, but %s reports %s in epoch %d",
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

// Failover makes the Sentinels promote a Redis replica while the primary is alive (SENTINEL FAILOVER), and
// returns the new primary; see WaitFailover. The old one accepts writes until it is demoted, up to 10 s
// later.
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

// requestFailover requests a failover from the Sentinels in turn until one accepts.
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

// WaitFailover waits until Primary is not old any more, and returns the new primary. Some Sentinels may
// still report old; WaitStable waits for all.
func (d *SentinelDeployment) WaitFailover(old *Server) *Server {
	d.t.Helper()
	return d.waitFailover(old, func() error { return nil })
}

// waitFailover is WaitFailover; it calls again after each poll that still finds old.
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

// Partition drops all traffic between the given servers and Sentinels and all others, without closing
// connections. Clients still reach both sides. All nodes must be Proxied. A second partition adds to the
// first.
func (d *SentinelDeployment) Partition(nodes ...*Server) {
	d.t.Helper()
	partition(d.t, d.nodes(), nodes)
}

// Heal ends all faults of all proxies, including faults that the test itself has injected.
func (d *SentinelDeployment) Heal() { heal(d.nodes()) }

func (d *SentinelDeployment) nodes() []*Server {
	return append(append([]*Server(nil), d.servers...), d.sentinels...)
}

// settle polls f until it returns nil. After settleTimeout it stops the test with the message problem.
func settle(t testing.TB, problem string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(settleTimeout)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s after %v: %v", problem, settleTimeout, err)
		}
		time.Sleep(4 * pollInterval)
	}
}
