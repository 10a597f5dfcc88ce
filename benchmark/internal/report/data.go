// Package report turns what a run measured into a page: a table of the claims, tables and plots.
package report

import (
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/measure"
)

// Report is what a run measured. What was not measured is nil or empty, and not shown.
type Report struct {
	Mode    string // quick or full
	Partial string // why something is missing; "" when nothing is
	Command string // as it was typed
	Began   time.Time
	Took    time.Duration

	Machine  Machine
	Workload Workload
	Checked  Checked
	Notes    []string // what could not be had, a sentence each

	Throughput  []Lane
	Pipelined   []Lane
	Latency     []Steady
	Propagation []Propagation
	Floor       *Floor
	Bytes       []Revisits
	Memory      *Memory
	Readers     *ReaderFault
	Redis       *RedisFault
	Failovers   []Failover
}

// Machine is what the run was made on and with.
type Machine struct {
	CPU, Kernel, Memory    string
	Cores                  int
	Go, RedisVersion       string
	NginxVersion, Wrk      string
	Commit, Runtime, Stack string
}

// Workload is what was sent.
type Workload struct {
	Posts       int
	Source      string // of the contents
	MeanBytes   float64
	MedianBytes int
	ReadBytes   float64 // mean, of the posts as they are drawn
	Connections int
	Threads     int // of wrk
	Round       time.Duration
	Rounds      int
	Rate        int // reads a second, beside what is measured at a constant rate
	WrkCommand  string
}

// Checked is how many answers were looked at.
type Checked struct{ Statuses, Bodies int64 }

// Names of the lanes whose ratios are told.
const (
	LaneFast    = "/post"
	LaneStd     = "/post, net/http lane"
	LaneMarshal = "/post-marshal"
	LaneRedis   = "/post-redis"
	LaneNginx   = "nginx, return 200"
	ViaDirect   = "direct"
	ViaGateway  = "gateway"
)

// Lane is a way to ask for a post, under closed-loop load. The values stand in the order of the rounds.
type Lane struct {
	Name, Via string
	Depth     int       // requests in flight on each connection
	Rates     []float64 // requests a second
	P50       []float64 // seconds, of single requests beside the load
	P99       []float64
	CPU       []float64 // seconds of the servers a request; empty when not known
	ClientCPU []float64 // cores that the load generator used
}

// Steady is the latency at a constant rate.
type Steady struct {
	Via       string
	Share     float64 // of the maximum; 0 when the rate was given
	Max       float64 // requests a second, as measured by the closed loop
	Rate      int     // wanted
	Reached   float64
	Sustained bool
	P50       []float64 // seconds, by round
	P90       []float64
	P99       []float64
	P999      []float64
	Late      float64 // seconds, p99: how late the generator sent
	ClientCPU float64 // cores
}

// Quantiles of a distribution, in seconds.
type Quantiles struct {
	P50, P90, P99, P999, Max float64
	Count                    int
}

// NewQuantiles returns those of sorted times.
func NewQuantiles(sorted []time.Duration) Quantiles {
	q := func(share float64) float64 { return measure.Quantile(sorted, share).Seconds() }
	return Quantiles{P50: q(0.5), P90: q(0.9), P99: q(0.99), P999: q(0.999), Max: q(1), Count: len(sorted)}
}

// Propagation is how long writes took to be visible on every reader.
type Propagation struct {
	Rate       int     // writes a second, wanted
	Reached    float64 // sent
	Readers    int
	Reads      int // a second, beside the writes
	Everywhere Quantiles
	First      Quantiles
	Resolution Quantiles
	CDF        []measure.Point // of Everywhere, in seconds
}

// Floor is how long Redis alone takes from publish to delivered.
type Floor struct {
	Rate, Bytes int
	Quantiles
	CDF []measure.Point
}

// Revisits is the traffic of a client that asks for what it has already, with its ETag.
type Revisits struct {
	Share                 float64 // of requests that were for a post that the client has
	Requests, NotModified int
	Plain                 int64 // bytes received without conditional requests
	Conditional           int64 // with them
	PlainSent             int64 // bytes sent
	ConditionalSent       int64
}

// Saved returns the share of the bytes, of both directions, that conditional requests save.
func (r Revisits) Saved() float64 {
	return 1 - float64(r.Conditional+r.ConditionalSent)/float64(r.Plain+r.PlainSent)
}

// Memory is what the posts take in the readers.
type Memory struct {
	Posts   int
	Loaded  bool // in this run; else they were there already and there is no before
	Seconds float64
	Readers []ReaderMemory
}

// ReaderMemory is one reader's.
type ReaderMemory struct {
	Name                string
	Before, Peak, After int64 // bytes resident
	EntriesBefore       int64 // posts that it held before
	Entries, Bytes      int64 // that the reader counts
	Complete            bool
	CPU                 float64 // seconds, of loading
	Traffic             float64 // cores, when the load was closed-loop through the gateway; 0 when not measured
}

// ReaderFault is what a reader that was killed, and one that was added, did to the reads.
type ReaderFault struct {
	Rate        int
	Requests    int
	Failed      int
	Failures    []load.Failure
	Readers     int
	KilledAt    float64 // seconds from the beginning of the load
	KillBalance float64 // seconds from the kill until the load was spread over all again; negative: not seen
	AddedAt     float64
	AddBalance  float64 // seconds from the order to add one
	Latency     Quantiles
}

// RedisFault is what a Redis that was killed did.
type RedisFault struct {
	Rate      int
	Requests  int
	Failed    int
	Failures  []load.Failure
	Down      float64 // seconds without an answer of Redis
	Writes    float64 // seconds from the kill until a write was acknowledged again
	Converged float64 // seconds from the kill until every reader was in step and had that write
	Latency   Quantiles
}

// Failover is what it cost that another Redis server became the primary.
type Failover struct {
	Planned      bool   // the primary was moved on purpose; else it was killed
	From, To     string // names of the primaries
	Rate         int    // reads a second
	WriteRate    int    // writes a second, wanted
	Requests     int    // reads
	Failed       int
	Failures     []load.Failure
	Out          float64 // seconds, longest time without an acknowledged write
	InStep       float64 // seconds from the fault until every reader served a write of after it
	Acknowledged int     // writes
	Refused      int     // writes that were not acknowledged
	Lost         int     // acknowledged writes
	Latency      Quantiles
}

// Name says what happened to the primary.
func (f Failover) Name() string {
	if f.Planned {
		return "planned failover"
	}
	return "kill -9 of the primary"
}
