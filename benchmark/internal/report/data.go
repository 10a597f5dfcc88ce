// Package report turns the measurements of a run into a page with a table of the claims, tables and plots.
package report

import (
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/measure"
)

// Report contains the measurements of a run. Those that were not made are nil or empty, and are not shown.
type Report struct {
	Mode    string // quick or full
	Partial string // reason why something is missing, "" if nothing is
	Command string // as it was typed
	Failed  []FailedPart
	Began   time.Time
	Took    time.Duration

	Machine  Machine
	Workload Workload
	Checked  Checked
	Notes    []string // a sentence for each thing that could not be measured
	Activity []PartActivity

	Throughput    []Lane
	Pipelined     []Lane
	Latency       []Steady
	Propagation   []Propagation
	HighestWrites []HighestWrites
	Floor         *Floor
	Bytes         []Revisits
	Memory        *Memory
	Own           *OwnCore
	Million       *Million
	Readers       *ReaderFault
	Redis         *RedisFault
	Failovers     []Failover
}

// Names of the parts of a run.
const (
	PartThroughput  = "throughput"
	PartPipelining  = "pipelining"
	PartLatency     = "latency"
	PartPropagation = "propagation"
	PartBytes       = "bytes"
	PartMemory      = "memory"
	PartLanes       = "lanes"
	PartMillion     = "million"
	PartReaders     = "readers"
	PartRedis       = "redis"
	PartFailover    = "failover"
)

// FailedPart is a part that ended with an error.
type FailedPart struct{ Name, Reason string }

// PartActivity is what else the machine did during a part.
type PartActivity struct {
	Part string
	machine.Activity
	Repeated bool // the machine was busy the first time
}

// Machine is the machine and the software of a run.
type Machine struct {
	CPU, Kernel, Memory    string
	Cores                  int
	Go, RedisVersion       string
	NginxVersion, Wrk      string
	Commit, Runtime, Stack string
}

// Workload is the posts and the load.
type Workload struct {
	Posts       int
	Source      string // origin of the contents
	MeanBytes   float64
	MedianBytes int
	ReadBytes   float64 // mean, of the posts as they are drawn
	Connections int
	Threads     int // threads of wrk
	Round       time.Duration
	Rounds      int
	Rate        int // reads a second beside writes and faults
	WrkCommand  string
}

// Checked is the number of answers that were checked.
type Checked struct{ Statuses, Bodies int64 }

// Names of the lanes and the proxies.
const (
	LaneFast      = "/post"
	LaneStd       = "/post, net/http lane"
	LaneMarshal   = "/post-marshal"
	LaneRedis     = "/post-redis"
	LaneNginx     = "nginx, return 200"
	LaneNetHTTP   = "net/http, prepared bytes"
	LaneZipf      = "/post, Zipf(0.99) ids"
	LaneUpdated   = "/post, 500 updates/s"
	LaneElsewhere = "/post, 500 updates/s elsewhere"
	ProxyGateway  = "gateway of the local stack"
	ProxyNginx    = "nginx, proxy_pass"
	ProxyHAProxy  = "HAProxy"
	ViaDirect     = "direct"
	ViaGateway    = "gateway"
)

// Lane is a closed-loop load on one kind of request. Slices have a value for each round.
type Lane struct {
	Name, Via string
	Depth     int       // requests in flight on each connection
	Rates     []float64 // requests a second
	P50       []float64 // seconds, of single requests during the load
	P99       []float64
	CPU       []float64 // seconds of the servers per request; empty when unknown
	ClientCPU []float64 // cores that the load generator used
}

// Steady is the latency at a constant rate.
type Steady struct {
	Via       string
	Highest   bool // the highest rate with a p99 below ClaimedRead; else a rate that was given
	Rate      int  // wanted; 0 when there is no such highest rate
	Reached   float64
	Sustained bool
	P50       []float64 // seconds, by round
	P90       []float64
	P99       []float64
	P999      []float64
	Late      float64 // seconds, p99: how late the generator sent
	ClientCPU float64 // cores
}

// Holds reports whether the rate was sustained with a p99 below ClaimedRead.
func (s Steady) Holds() bool { return s.Sustained && len(s.P99) > 0 && Median(s.P99) < ClaimedRead }

// HighestWrites is the highest write rate with a p99 of the propagation below a bound.
type HighestWrites struct {
	Bound float64 // seconds
	Rate  int     // 0 when there is none
	P99   float64 // seconds, at that rate
}

// OwnCore is one reader of the benchmark's own, and its peers.
type OwnCore struct {
	Apart           bool   // server and load generator were pinned to different cores
	Server, Clients string // lists of cores
	Posts, Bytes    int    // Bytes: of the post that is asked for
	Round           time.Duration
	Versions        map[string]string // versions of the peers, by lane
	Lanes           []Lane
	Shared          []Lane // the reader on all cores, shared with the load generator
	Proxies         []Lane
}

// Setting describes the cores.
func (o *OwnCore) Setting() string {
	if !o.Apart {
		return "cores shared with the load generator"
	}
	return fmt.Sprintf("a core of its own (server on core %s, load generator on core %s)", o.Server, o.Clients)
}

// Million is one reader of the benchmark's own with posts of one size.
type Million struct {
	Posts, Bytes int
	Imported     float64   // posts a second
	Starts       []float64 // posts a second, from the start of the process to ready
	Scans        []float64 // posts a second of a SCAN and MGET that keeps nothing
	Loaded       int64     // bytes resident at most, after a start
	Peak         int64     // bytes resident at most, with updates and scrapes
	Updates      []Updates
	Idle         int   // connections
	IdleBytes    int64 // resident, in addition
}

// Updates is a reader while posts are updated.
type Updates struct {
	Rate, Written int
	Bulk          bool      // as lines of an import; else a request for each
	Reads         float64   // a second, meanwhile
	Lags          []float64 // writes behind Redis, by sample
	Collections   int
	Pauses        Quantiles
	Collector     float64 // cores that the garbage collector used
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

// Propagation is the time until writes were visible on every reader.
type Propagation struct {
	Rate       int     // writes a second, wanted
	Reached    float64 // sent
	Readers    int
	Reads      int // a second, beside the writes
	Everywhere Quantiles
	First      Quantiles
	Resolution Quantiles
	CDF        []measure.Point // distribution of Everywhere, in seconds
}

// Floor is the time that Redis alone takes from publish to delivered.
type Floor struct {
	Rate, Bytes int
	Quantiles
	CDF []measure.Point
}

// Revisits is the traffic of a client that reads some posts repeatedly.
type Revisits struct {
	Share                 float64 // share of the requests for posts that the client has
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

// Memory is the memory of the readers.
type Memory struct {
	Posts   int
	Loaded  bool // in this run; else the posts existed already, and the values before are unknown
	Seconds float64
	Readers []ReaderMemory
}

// ReaderMemory is the memory of one reader.
type ReaderMemory struct {
	Name                string
	Before, Peak, After int64 // bytes resident
	EntriesBefore       int64 // posts before
	Entries, Bytes      int64 // by the reader's status
	Complete            bool
	CPU                 float64 // seconds, of the import
	Traffic             float64 // cores, during a closed loop through the gateway; 0 when not measured
}

// ReaderFault is the effect of a killed and an added reader on the reads.
type ReaderFault struct {
	Rate        int
	Requests    int
	Failed      int
	Failures    []load.Failure
	Readers     int
	KilledAt    float64 // seconds since the beginning of the load
	KillBalance float64 // seconds from the kill until the load was spread over all readers; negative: never
	AddedAt     float64
	AddBalance  float64 // seconds from the request to add one; negative: never
	Latency     Quantiles
	Timeline    Timeline
}

// RedisFault is the effect of a killed Redis.
type RedisFault struct {
	Rate      int
	Requests  int
	Failed    int
	Failures  []load.Failure
	Down      float64 // seconds until Redis answered again
	Writes    float64 // seconds from the kill until a write was acknowledged again
	Converged float64 // seconds from the kill until every reader was in step and had that write
	Latency   Quantiles
	Timeline  Timeline
}

// Failover is the effect of a change of the primary.
type Failover struct {
	Planned      bool   // by make failover; else the primary was killed
	From, To     string // names of the primaries
	Rate         int    // reads a second
	WriteRate    int    // writes a second, wanted
	Requests     int    // reads
	Failed       int
	Failures     []load.Failure
	Out          float64 // seconds, longest time without an acknowledged write
	InStep       float64 // seconds from the fault until every reader served a write from after it
	Acknowledged int     // writes
	Refused      int     // writes that were not acknowledged
	Lost         int     // acknowledged writes
	Latency      Quantiles
}

// Name returns what happened to the primary.
func (f Failover) Name() string {
	if f.Planned {
		return "planned failover"
	}
	return "kill -9 of the primary"
}
