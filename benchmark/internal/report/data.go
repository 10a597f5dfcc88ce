// Package report turns the measurements of a run into a page with a table of the claims, tables and plots.
package report

import (
	"fmt"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/measure"
)

// Report contains the measurements of a run. Measurements that were not made are nil or empty, and the page omits
// them.
type Report struct {
	Mode    string // quick or full
	Partial string // reason why parts are missing, "" when none is
	Command string // command line that repeats the run
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
	UpdateCost    *UpdateCost
	Fanout        *Fanout
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
	PartUpdates     = "updates"
	PartFanout      = "fanout"
	PartReaders     = "readers"
	PartRedis       = "redis"
	PartFailover    = "failover"
)

// FailedPart is a part that ended with an error.
type FailedPart struct{ Name, Reason string }

// PartActivity is the activity of the machine during a part, apart from the stack and the benchmark.
type PartActivity struct {
	Part string
	machine.Activity
	Repeated bool // the machine was busy the first time
}

// Machine describes the machine and the software of a run.
type Machine struct {
	CPU, Kernel, Memory    string
	Cores                  int
	Go, RedisVersion       string
	NginxVersion, Wrk      string
	Commit, Runtime, Stack string
}

// Workload describes the posts and the requests of a run.
type Workload struct {
	Posts       int
	Source      string // origin of the contents
	MeanBytes   float64
	MedianBytes int
	ReadBytes   float64 // mean size of the posts that are read
	Connections int
	Threads     int // threads of wrk
	Round       time.Duration
	Rounds      int
	Rate        int // reads per second during writes and faults
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

// Lane is a closed loop of one kind of request. Slices have a value for each round.
type Lane struct {
	Name, Via string
	Depth     int       // requests in flight on each connection
	Rates     []float64 // requests per second
	P50       []float64 // seconds, of single requests during the closed loop
	P99       []float64
	CPU       []float64 // CPU seconds of the servers per request; empty when unknown
	ClientCPU []float64 // cores used by the load generator
}

// Steady is the latency at a constant rate.
type Steady struct {
	Via       string
	Highest   bool    // whether Rate is the highest one with a p99 below ClaimedRead, and not a given one
	Rate      int     // requested reads per second; 0 when no rate has such a p99
	Reached   float64 // reads per second that were sent
	Sustained bool
	P50       []float64 // seconds, by round
	P90       []float64
	P99       []float64
	P999      []float64
	Late      float64 // seconds, p99 of the delay with which requests were sent
	ClientCPU float64 // cores used by the load generator
}

// Holds reports whether the rate was sustained with a p99 below ClaimedRead.
func (s Steady) Holds() bool { return s.Sustained && len(s.P99) > 0 && Median(s.P99) < ClaimedRead }

// HighestWrites is the highest write rate with a p99 of the propagation below a bound.
type HighestWrites struct {
	Bound float64 // seconds
	Rate  int     // 0 when there is none
	P99   float64 // seconds, at that rate
}

// OwnCore is one reader that the benchmark starts for itself, and its peers.
type OwnCore struct {
	Pinned          bool   // server and load generator were pinned to different cores
	Server, Clients string // lists of their cores
	Posts, Bytes    int    // number of posts, and size of the post that is read
	Round           time.Duration
	Versions        map[string]string // versions of the peers, by lane
	Lanes           []Lane
	Shared          []Lane // the reader on all cores, shared with the load generator
	Proxies         []Lane
}

// Setting describes the cores.
func (o *OwnCore) Setting() string {
	if !o.Pinned {
		return "cores shared with the load generator"
	}
	return fmt.Sprintf("a core of its own (server on core %s, load generator on core %s)", o.Server, o.Clients)
}

// Million is one reader that the benchmark starts for itself, with posts of one size.
type Million struct {
	Posts, Bytes int
	Imported     float64   // posts per second of the import
	Starts       []float64 // posts per second from the start of the process until it was ready
	Scans        []float64 // posts per second of a SCAN and MGET that discards the values
	StartPeak    int64     // maximum of the resident bytes during a start
	Peak         int64     // maximum of the resident bytes, including updates and scrapes
	Updates      []Updates
	Idle         int   // number of idle connections
	IdleBytes    int64 // resident bytes that they add
}

// Updates is the state of a reader while posts are updated.
type Updates struct {
	Rate, Written int       // updates per second, and number of updates
	Bulk          bool      // the updates were lines of an import, and not single requests
	Reads         float64   // reads per second meanwhile
	Lags          []float64 // writes behind Redis, by sample
	Collections   int
	Pauses        Quantiles
	Collector     float64 // cores used by the garbage collector
}

// Quantiles of a distribution, in seconds.
type Quantiles struct {
	P50, P90, P99, P999, Max float64
	Count                    int
}

// NewQuantiles returns the quantiles of sorted times.
func NewQuantiles(sorted []time.Duration) Quantiles {
	q := func(share float64) float64 { return measure.Quantile(sorted, share).Seconds() }
	return Quantiles{P50: q(0.5), P90: q(0.9), P99: q(0.99), P999: q(0.999), Max: q(1), Count: len(sorted)}
}

// Propagation is the time until writes were visible on every reader.
type Propagation struct {
	Rate       int     // requested writes per second
	Reached    float64 // writes per second that were sent
	Readers    int
	Reads      int // reads per second during the writes
	Everywhere Quantiles
	First      Quantiles
	Resolution Quantiles
	CDF        []measure.Point // distribution of Everywhere, in seconds
}

// Floor is the time from PUBLISH to delivery in Redis Pub/Sub without the stack.
type Floor struct {
	Rate, Bytes int
	Quantiles
	CDF []measure.Point
}

// Revisits is the traffic of a client that reads some posts again.
type Revisits struct {
	Share                 float64 // share of the requests for posts that the client has read before
	Requests, NotModified int
	Plain                 int64 // bytes received without conditional requests
	Conditional           int64 // bytes received with conditional requests
	PlainSent             int64 // bytes sent without conditional requests
	ConditionalSent       int64 // bytes sent with conditional requests
}

// Saved returns the share of the bytes, of both directions, that conditional requests save.
func (r Revisits) Saved() float64 {
	return 1 - float64(r.Conditional+r.ConditionalSent)/float64(r.Plain+r.PlainSent)
}

// Memory is the memory of the readers.
type Memory struct {
	Posts    int
	Imported bool    // in this run; otherwise the posts existed already, and the values before the import are unknown
	Seconds  float64 // duration of the import
	Readers  []ReaderMemory
}

// ReaderMemory is the memory of one reader.
type ReaderMemory struct {
	Name                string
	Before, Peak, After int64 // resident bytes
	EntriesBefore       int64 // entries before the import
	Entries, Bytes      int64 // of the cache, as the reader's status reports them
	Complete            bool
	CPU                 float64 // CPU seconds during the import
	Traffic             float64 // cores, during a closed loop through the gateway; 0 when not measured
}

// ReaderFault is the effect of a killed and an added reader on the reads.
type ReaderFault struct {
	Rate        int
	Requests    int
	Failed      int
	Failures    []load.Failure
	Readers     int
	KilledAt    float64 // seconds since the first read
	KillBalance float64 // seconds from the kill until the reads were balanced over all readers; negative means never
	AddedAt     float64
	AddBalance  float64 // seconds from the request to add a reader until the reads were balanced; negative means never
	Latency     Quantiles
	Timeline    Timeline
}

// RedisFault is the effect of a killed Redis.
type RedisFault struct {
	Rate      int
	Requests  int
	Failed    int
	Failures  []load.Failure
	Down      float64 // seconds from the kill until Redis answered again
	Writes    float64 // seconds from the kill until a write was acknowledged again
	Converged float64 // seconds from the kill until every reader was in sync and had that write
	Latency   Quantiles
	Timeline  Timeline
}

// Failover is the effect of a change of the primary.
type Failover struct {
	Planned      bool   // make failover replaced the primary; otherwise it was killed
	From, To     string // names of the primaries
	Rate         int    // reads per second
	WriteRate    int    // requested writes per second
	Requests     int    // number of reads
	Failed       int    // reads that failed
	Failures     []load.Failure
	Out          float64 // seconds, longest time without an acknowledged write
	InSync       float64 // seconds from the fault until every reader served a write acknowledged after Out
	Acknowledged int     // acknowledged writes
	Refused      int     // writes that were not acknowledged
	Lost         int     // acknowledged writes that were lost
	Latency      Quantiles
}

// Name returns what happened to the primary.
func (f Failover) Name() string {
	if f.Planned {
		return "planned failover"
	}
	return "kill -9 of the primary"
}
