package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/lab"
	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/machine"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/internal/workload"
)

// epoch is the time of posts that are encoded only to find out their size.
var epoch = time.Unix(1e9, 0)

// Progress shows the progress of a run. Its methods do not block.
type Progress interface {
	Part(title string)                     // begins a part
	Step(what string, takes time.Duration) // begins a measurement with its expected duration
	Say(format string, args ...any)        // prints a result in one line
}

// part is a group of measurements that can be chosen separately.
type part struct {
	name, title string
	repeatable  bool // can be run again; false for a part that kills a process or imports the posts
	reserved    bool // earlier parts must leave enough time for it
	takes       func(plan) time.Duration
	run         func(*suite, context.Context) error
}

// overhead is the time that a run of wrk takes in addition to its duration.
const overhead = 300 * time.Millisecond

// The parts in the order of a run: the first one imports the posts, and faults come last.
var parts = []part{
	{Memory, "memory: memory of the readers with all posts", false, false, func(p plan) time.Duration {
		return time.Duration(p.posts)*25*time.Microsecond + 2*p.round
	}, (*suite).memory},
	{Throughput, "throughput: /post, /post-marshal, /post-redis and nginx on shared cores", true, false, func(p plan) time.Duration {
		return time.Duration(8*p.rounds) * (p.round + overhead)
	}, (*suite).throughput},
	{Pipelining, "pipelining: several requests in flight on a connection", true, false, func(p plan) time.Duration {
		return time.Duration(3*p.rounds) * (p.round + overhead)
	}, (*suite).pipelining},
	{Latency, "latency: at constant rates, and the highest rate with p99 below 5 ms", true, false, func(p plan) time.Duration {
		return time.Duration(4*p.steadyRounds)*(p.steady+overhead/3) + 20*(p.probe+overhead/3)
	}, (*suite).latency},
	{Propagation, "propagation: from POST to visible on every reader, and the highest write rates", true, false, func(p plan) time.Duration {
		return 3*p.propagation + p.floor + 16*(p.probe+overhead)
	}, (*suite).propagation},
	{Bytes, "bytes: bandwidth that 304 saves", true, false, func(p plan) time.Duration {
		return time.Duration(10*p.revisits) * 150 * time.Microsecond
	}, (*suite).bytes},
	{Lanes, "lanes: one reader with a core of its own, compared with nginx, net/http and HAProxy", true, false, func(p plan) time.Duration {
		return 5*time.Second + time.Duration(p.posts)*15*time.Microsecond + time.Duration(17*p.rounds)*(p.ownRound+overhead)
	}, (*suite).ownCore},
	{Million, "million: start, updates, garbage collection and idle connections of one reader", true, false, func(p plan) time.Duration {
		return time.Duration(1+2*p.starts)*time.Duration(p.posts)*3*time.Microsecond + 2*p.updates + 10*time.Second
	}, (*suite).million},
	{Updates, "updates: CPU time of an update, and POST to visible in comparison with Redis without the API", true, false, func(p plan) time.Duration {
		return 2*time.Second + time.Duration(4*p.rounds)*(p.floor+overhead)
	}, (*suite).updateCost},
	{Fanout, "fanout: writes/s, CPU time and delay of Redis by the number of its subscribers, with and without Redis replicas as relays", true, false, func(p plan) time.Duration {
		return 4*time.Second + time.Duration(len(p.fanoutRates)*(1+2*len(p.subscribers)))*(p.fanout+overhead) +
			time.Duration(2*len(p.audiences))*(p.capacity+p.capacity/8+overhead)
	}, (*suite).fanout},
	{Readers, "readers: one is killed, and one is added, under load", false, true, func(p plan) time.Duration {
		return 15*time.Second + time.Duration(p.posts)*10*time.Microsecond
	}, (*suite).readers},
	{Redis, "redis: Redis is killed under load", false, true, func(p plan) time.Duration {
		return 7*time.Second + time.Duration(p.posts)*5*time.Microsecond
	}, (*suite).redis},
	{Failover, "failover: another Redis server takes over under load, after a kill and as planned", false, true, func(p plan) time.Duration {
		return time.Duration(p.failovers) * 30 * time.Second
	}, (*suite).failover},
}

// Estimate returns the expected duration of the chosen parts. failsOver says whether another server takes over when
// Redis fails.
func Estimate(o Options, failsOver bool) time.Duration { return estimate(o, newPlan(o), failsOver) }

func estimate(o Options, p plan, failsOver bool) time.Duration {
	var sum time.Duration
	for _, part := range parts {
		skipped := failsOver && part.name == Redis || !failsOver && part.name == Failover
		if o.has(part.name) && !skipped {
			sum += part.takes(p) + time.Second
		}
	}
	return sum
}

// Posts returns the number of posts of a run.
func Posts(o Options) int { return newPlan(o).posts }

// has reports whether a part is chosen. A quick run has no time for Fanout unless it is named.
func (o Options) has(name string) bool {
	if len(o.Only) == 0 {
		return o.Full || name != Fanout
	}
	return slices.Contains(o.Only, name)
}

// Titles returns the name and the title of each part.
func Titles() [][2]string {
	var t [][2]string
	for _, p := range parts {
		t = append(t, [2]string{p.name, p.title})
	}
	return t
}

// meter starts measuring the other activity of the machine, and returns a function that ends the measurement.
type meter func(ctx context.Context, trees []int, maxWait time.Duration) (end func() machine.Activity)

// suite is one run.
type suite struct {
	plan
	addresses target.Addresses
	runtime   target.Runtime
	mix       *workload.Mix
	reads     *load.Reads
	ranks     []int // ranks of the reads at a constant rate, drawn once
	wrk       *load.Wrk
	counts    load.Counts
	peers     peers
	own       ownStack
	report    *report.Report
	progress  Progress
	chosen    Options
	deadline  time.Time
	skipped   []string // parts for which no time was left
	meter     meter
}

// Run runs the chosen parts on a running stack. The report contains everything that was measured, even when parts
// failed, the time limit was reached or ctx ended, and names the parts that are missing. The error joins those of
// the parts that failed; the report is nil when the run could not start. Wrong content (*load.WrongError) ends the
// run, because other answers may be wrong too.
func Run(ctx context.Context, o Options, a target.Addresses, r target.Runtime, progress Progress) (*report.Report, error) {
	return run(ctx, o, newPlan(o), a, r, progress, func(ctx context.Context, trees []int, maxWait time.Duration) func() machine.Activity {
		return machine.Begin(ctx, trees, maxWait).End
	})
}

func run(ctx context.Context, o Options, p plan, a target.Addresses, r target.Runtime, progress Progress, m meter) (*report.Report, error) {
	s := &suite{plan: p, addresses: a, runtime: r, mix: workload.NewMix(), progress: progress, meter: m, chosen: o}
	s.reads = &load.Reads{Mix: s.mix, Posts: s.posts}
	s.ranks = s.reads.Draw(3, 1<<16)
	s.report = &report.Report{Mode: "quick", Began: time.Now()}
	s.deadline = s.report.Began.Add(s.limit)
	if o.Full {
		s.report.Mode = "full"
	}
	if len(o.Only) > 0 {
		s.report.Partial = "it was limited to " + strings.Join(o.Only, ", ")
	}
	var err error
	if s.wrk, err = load.NewWrk(s.reads.Keys(1, load.ListLength), s.reads.Keys(2, load.ListLength), s.reads.Check, &s.counts); err != nil {
		return nil, err
	}
	defer s.wrk.Close()
	own, err := lab.New()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	s.peers.lab, s.own.lab = own, own
	s.describe(ctx)

	limited, cancel := context.WithDeadlineCause(ctx, s.deadline, errNoTime)
	defer cancel()
	err = s.parts(limited, o)
	if len(s.skipped) > 0 {
		s.report.Partial = fmt.Sprintf("no time was left for %s, because the run is limited to %v", strings.Join(s.skipped, ", "), s.limit.Round(time.Second))
	}
	s.report.Took = time.Since(s.report.Began)
	s.report.Checked = report.Checked{Statuses: s.counts.Statuses.Load(), Bodies: s.counts.Bodies.Load()}
	if ctx.Err() != nil {
		s.report.Partial = "the run was stopped before its end"
		return s.report, nil
	}
	return s.report, err
}

// parts runs the chosen parts. The report names a part that fails, and later parts still run.
func (s *suite) parts(ctx context.Context, o Options) error {
	var failed error
	if !o.has(Memory) { // the part Memory imports the posts itself
		s.progress.Part("posts")
		if _, err := s.ensurePosts(ctx, nil); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if !o.has(p.name) {
			continue
		}
		s.progress.Part(p.title)
		before := *s.report
		err := s.part(ctx, p)
		if err == nil {
			continue
		}
		if ctx.Err() == nil || errors.Is(err, errNoTime) { // partial results are kept only when the user stops the run
			before.Notes = s.report.Notes
			*s.report = before
		}
		if errors.Is(err, errNoTime) {
			s.skipped = append(s.skipped, p.name)
			s.progress.Say("skipped: the run is limited to %v", s.limit.Round(time.Second))
			continue
		}
		s.report.Failed = append(s.report.Failed, report.FailedPart{Name: p.name, Reason: err.Error()})
		s.progress.Say("failed: %v", err)
		err = fmt.Errorf("%s: %w", p.name, err)
		failed = errors.Join(failed, err)
		var wrong *load.WrongError
		if errors.As(err, &wrong) && !wrong.Failed || errors.Is(ctx.Err(), context.Canceled) {
			break
		}
	}
	return failed
}

// errNoTime reports that the remaining time is reserved for later parts.
var errNoTime = errors.New("no time is left")

// part runs a part, and runs it again when the machine was busy and enough time is left.
func (s *suite) part(ctx context.Context, p part) error {
	// The faults come last and are the most important, so a part that takes longer than expected must not displace them.
	last := s.deadline.Add(-s.after(p, func(p part) bool { return p.reserved }))
	ctx, cancel := context.WithDeadlineCause(ctx, last, errNoTime)
	defer cancel()
	for repeated := false; ; repeated = true {
		began := time.Now()
		activity, err := s.once(ctx, p)
		if errors.Is(context.Cause(ctx), errNoTime) && err != nil {
			return errNoTime
		} else if err != nil {
			return err
		}
		activity.Repeated = repeated
		busy := activity.Busy()
		enough := time.Until(last) > time.Since(began)+s.after(p, func(p part) bool { return !p.reserved })
		if busy != "" && !repeated && s.repeats && p.repeatable && enough {
			s.progress.Say("machine busy: %s; measuring this part again", busy)
			continue
		}
		if busy != "" {
			s.progress.Say("machine busy: %s; the claims of this part are inconclusive", busy)
		}
		s.report.Activity = append(s.report.Activity, activity)
		return nil
	}
}

// once runs a part and measures the other activity of the machine.
func (s *suite) once(ctx context.Context, p part) (report.PartActivity, error) {
	trees, err := s.runtime.Processes(ctx)
	if err != nil {
		return report.PartActivity{}, err
	}
	if len(trees) > 0 {
		trees = append(trees, os.Getpid())
	}
	end := s.meter(ctx, trees, s.idleWait)
	if err := errors.Join(ctx.Err(), p.run(s, ctx)); err != nil {
		return report.PartActivity{}, err
	}
	return report.PartActivity{Part: p.name, Activity: end()}, nil
}

// after returns the expected duration of the chosen parts after p that which selects. It omits Failover, which
// replaces Redis on a stack that fails over.
func (s *suite) after(p part, which func(part) bool) (sum time.Duration) {
	i := slices.IndexFunc(parts, func(other part) bool { return other.name == p.name })
	for _, other := range parts[i+1:] {
		if which(other) && s.chosen.has(other.name) && other.name != Failover {
			sum += other.takes(s.plan)
		}
	}
	return sum
}

// note adds a sentence about something that could not be measured to the report.
func (s *suite) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(s.report.Notes, text) {
		s.report.Notes = append(s.report.Notes, text)
		s.progress.Say("%s", text)
	}
}

// readerAddrs returns the addresses of all readers. The last one is not behind the gateway.
func (s *suite) readerAddrs(ctx context.Context) ([]string, error) {
	readers, err := s.runtime.Readers(ctx)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, r := range readers {
		addrs = append(addrs, r.Addr)
	}
	return append(addrs, s.addresses.Direct), nil
}
