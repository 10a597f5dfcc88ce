// Package suite is the benchmark's parts, and the order in which they run.
package suite

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options are what a person may choose. Zero values stand for those of the mode.
type Options struct {
	Full        bool
	Only        []string      // parts; empty stands for all
	Duration    time.Duration // of one measurement
	Connections int
	Rate        int // reads a second where the load has a constant rate
	Posts       int
}

// Names of the parts.
const (
	Throughput  = "throughput"
	Pipelining  = "pipelining"
	Latency     = "latency"
	Propagation = "propagation"
	Bytes       = "bytes"
	Memory      = "memory"
	Readers     = "readers"
	Redis       = "redis"
	Failover    = "failover"
)

// Names returns the names of all parts.
func Names() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// defaultRate is the reads a second that run beside writes and faults: a load that is there without
// taking the machine from what is measured.
const defaultRate = 2000

// failoverWrites is the writes a second that a failover meets.
const failoverWrites = 200

// plan is how long what is measured for.
type plan struct {
	rounds       int
	round        time.Duration // of closed-loop load; wrk counts whole seconds
	steadyRounds int
	steady       time.Duration // of load at a constant rate
	propagation  time.Duration
	floor        time.Duration
	revisits     int           // requests of a client that comes again
	settle       time.Duration // of load before a fault, and after it
	failovers    int           // of each kind
	posts        int
	connections  int
	threads      int // of wrk
	rate         int
	rateGiven    bool
}

func newPlan(o Options) plan {
	p := plan{
		rounds: 2, round: time.Second, steadyRounds: 1, steady: 1500 * time.Millisecond,
		propagation: 2 * time.Second, floor: time.Second, revisits: 1000, settle: 1500 * time.Millisecond,
		failovers: 1,
		posts:     100_000, connections: 64, rate: defaultRate,
		// The servers need the machine too.
		threads: max(1, runtime.NumCPU()/2),
	}
	if o.Full {
		p.rounds, p.round, p.steadyRounds, p.steady = 5, 8*time.Second, 3, 10*time.Second
		p.propagation, p.floor, p.revisits, p.failovers, p.posts = 30*time.Second, 15*time.Second, 10_000, 3, 1_000_000
	}
	if o.Duration > 0 {
		p.round, p.steady, p.propagation, p.floor = o.Duration, o.Duration, o.Duration, o.Duration
	}
	if o.Connections > 0 {
		p.connections = o.Connections
	}
	if o.Posts > 0 {
		p.posts = o.Posts
	}
	if o.Rate > 0 {
		p.rate, p.rateGiven = o.Rate, true
	}
	p.threads = min(p.threads, p.connections)
	return p
}

// Validate reports an option that cannot work.
func (o Options) Validate() error {
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("there is no part %q: use %s", name, strings.Join(Names(), ", "))
		}
	}
	for _, n := range []struct {
		name       string
		value, max int
	}{{"connections", o.Connections, 10_000}, {"rate", o.Rate, 10_000_000}, {"posts", o.Posts, 10_000_000}} {
		if n.value < 0 || n.value > n.max {
			return fmt.Errorf("--%s %d: use a number from 1 to %d", n.name, n.value, n.max)
		}
	}
	if o.Duration < 0 || o.Duration > time.Hour {
		return fmt.Errorf("--duration %v: use up to an hour, such as 5s", o.Duration)
	}
	return nil
}
