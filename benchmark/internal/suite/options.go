// Package suite contains the parts of the benchmark and runs them in order.
package suite

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/report"
)

// Options are the choices on the command line. Zero values mean the defaults of the mode.
type Options struct {
	Full        bool
	Only        []string      // parts to run; empty means all
	Duration    time.Duration // duration of one measurement
	Connections int
	Rate        int // reads per second at a constant rate
	Posts       int
}

// Names of the parts.
const (
	Throughput  = report.PartThroughput
	Pipelining  = report.PartPipelining
	Latency     = report.PartLatency
	Propagation = report.PartPropagation
	Bytes       = report.PartBytes
	Memory      = report.PartMemory
	Lanes       = report.PartLanes
	Million     = report.PartMillion
	Updates     = report.PartUpdates
	Fanout      = report.PartFanout
	Readers     = report.PartReaders
	Redis       = report.PartRedis
	Failover    = report.PartFailover
)

// Names returns the names of all parts.
func Names() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

const (
	// defaultRate is the rate of the reads during writes and faults, in reads per second: high enough to detect
	// failures, and low enough not to affect the measurement.
	defaultRate = 2000
	// referenceRate is the rate, in reads per second, whose latencies are reported in full.
	referenceRate = 1000
	// failoverWrites is the rate of the writes during a failover, in writes per second.
	failoverWrites = 200
)

// plan contains the durations and sizes of a run.
type plan struct {
	rounds       int
	round        time.Duration // duration of a closed-loop round; wrk counts whole seconds
	steadyRounds int
	steady       time.Duration // duration of a round at a constant rate
	probe        time.Duration // duration of each step of a search for the highest rate
	propagation  time.Duration
	floor        time.Duration
	revisits     int           // requests of the client that revisits posts
	settle       time.Duration // duration of the reads before and after a fault
	failovers    int           // number of failovers of each kind
	posts        int
	connections  int
	threads      int // threads of wrk
	rate         int
	rateGiven    bool

	ownRound time.Duration // duration of a closed-loop round in the lab
	starts   int           // number of starts of the reader with all posts
	updates  time.Duration // duration of the updates at each rate
	idle     int           // number of idle connections

	fanout      time.Duration // duration of the writes to each number of subscribers
	subscribers []int         // numbers of subscribers
	fanoutRates []int         // writes per second to them
	capacity    time.Duration // duration of each measurement of the capacity of Redis
	audiences   []int         // numbers of subscribers in these measurements

	idleWait time.Duration // longest wait for an idle machine before each part
	repeats  bool          // parts that were measured on a busy machine are measured again
	limit    time.Duration // limit of the whole run
}

func newPlan(o Options) plan {
	p := plan{
		rounds: 1, round: time.Second, steadyRounds: 1, steady: time.Second, probe: 500 * time.Millisecond,
		propagation: 1500 * time.Millisecond, floor: 500 * time.Millisecond, revisits: 1000, settle: 1500 * time.Millisecond,
		failovers: 1,
		posts:     100_000, connections: 64, rate: defaultRate,
		// The servers need cores too.
		threads:  max(1, runtime.NumCPU()/2),
		ownRound: time.Second, starts: 1, updates: time.Second, idle: 1000,
		fanout: time.Second, subscribers: []int{20, 200}, fanoutRates: []int{1000},
		capacity: time.Second, audiences: []int{20, 200},
		idleWait: time.Second, limit: 160 * time.Second,
	}
	if o.Full {
		p.rounds, p.round, p.steadyRounds, p.steady, p.probe = 3, 4*time.Second, 3, 5*time.Second, 2*time.Second
		p.propagation, p.floor, p.revisits, p.failovers, p.posts = 10*time.Second, 5*time.Second, 10_000, 3, 1_000_000
		p.ownRound, p.starts, p.updates, p.idle = 2*time.Second, 3, 15*time.Second, 10_000
		p.fanout, p.subscribers, p.fanoutRates = 4*time.Second, []int{20, 100, 200, 400}, []int{100, 1000}
		p.capacity, p.audiences = 2*time.Second, []int{3, 20, 100, 200, 400, 1000}
		p.idleWait, p.repeats, p.limit = 10*time.Second, true, 15*time.Minute
	}
	if o.Duration > 0 {
		p.round, p.steady, p.propagation, p.floor = o.Duration, o.Duration, o.Duration, o.Duration
		p.probe, p.ownRound, p.updates, p.fanout, p.capacity = o.Duration, o.Duration, o.Duration, o.Duration, o.Duration
	}
	longer := o.Duration > 0 || o.Posts > p.posts
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
	if longer {
		p.limit = max(p.limit, 2*estimate(o, p, true))
	}
	return p
}

// Validate returns an error that names an option that cannot work.
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
