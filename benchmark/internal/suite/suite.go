package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"heavy-read-api/benchmark/internal/load"
	"heavy-read-api/benchmark/internal/report"
	"heavy-read-api/benchmark/internal/target"
	"heavy-read-api/internal/workload"
)

// Progress hears what goes on. Its methods do not block.
type Progress interface {
	Part(title string)                     // a part begins
	Step(what string, takes time.Duration) // a measurement begins
	Say(format string, args ...any)        // a result, in a line
}

// part is one of the things that are measured.
type part struct {
	name, title string
	takes       func(plan) time.Duration
	run         func(*suite, context.Context) error
}

// overhead is what a run of wrk takes beside its duration.
const overhead = 300 * time.Millisecond

// The parts in the order in which they run: the posts are loaded first, and faults come last.
var parts = []part{
	{Memory, "memory: what the posts take in a reader", func(p plan) time.Duration {
		return time.Duration(p.posts)*25*time.Microsecond + 2*p.round
	}, (*suite).memory},
	{Throughput, "throughput: /post, /post-marshal, /post-redis and the peers", func(p plan) time.Duration {
		return time.Duration(8*p.rounds) * (p.round + overhead)
	}, (*suite).throughput},
	{Pipelining, "pipelining: several requests in flight on a connection", func(p plan) time.Duration {
		return time.Duration(3*p.rounds) * (p.round + overhead)
	}, (*suite).pipelining},
	{Latency, "latency at a constant rate", func(p plan) time.Duration {
		return time.Duration(6*p.steadyRounds) * (p.steady + overhead/3)
	}, (*suite).latency},
	{Propagation, "propagation: from POST to visible on every reader", func(p plan) time.Duration {
		return 3*p.propagation + p.floor
	}, (*suite).propagation},
	{Bytes, "bytes that 304 saves", func(p plan) time.Duration {
		return time.Duration(10*p.revisits) * 150 * time.Microsecond
	}, (*suite).bytes},
	{Readers, "a reader is killed, and one is added, under load", func(p plan) time.Duration {
		return 15*time.Second + time.Duration(p.posts)*10*time.Microsecond
	}, (*suite).readers},
	{Redis, "Redis is killed under load", func(p plan) time.Duration {
		return 7*time.Second + time.Duration(p.posts)*5*time.Microsecond
	}, (*suite).redis},
	{Failover, "another Redis server takes over under load, after a kill and on purpose", func(p plan) time.Duration {
		return time.Duration(p.failovers) * 30 * time.Second
	}, (*suite).failover},
}

// Estimate returns how long the parts that are chosen take, on a stack whose Redis fails over or not.
func Estimate(o Options, failsOver bool) time.Duration {
	p := newPlan(o)
	var sum time.Duration
	for _, part := range parts {
		skipped := failsOver && part.name == Redis || !failsOver && part.name == Failover
		if o.has(part.name) && !skipped {
			sum += part.takes(p)
		}
	}
	return sum
}

// Posts returns how many posts a run loads.
func Posts(o Options) int { return newPlan(o).posts }

func (o Options) has(name string) bool { return len(o.Only) == 0 || slices.Contains(o.Only, name) }

// Titles returns name and title of each part.
func Titles() [][2]string {
	var t [][2]string
	for _, p := range parts {
		t = append(t, [2]string{p.name, p.title})
	}
	return t
}

// suite is one run.
type suite struct {
	plan
	addresses target.Addresses
	runtime   target.Runtime
	mix       *workload.Mix
	reads     *load.Reads
	ranks     []int // drawn, for loads at a constant rate
	wrk       *load.Wrk
	counts    load.Counts
	peer      *peers
	report    *report.Report
	progress  Progress
}

// Run measures what the options choose on a stack that is up. The report is what was measured, also
// when ctx ended before the rest of it; then, or when a part could not be measured, Partial says why.
// A *load.WrongError means that there is nothing to report.
func Run(ctx context.Context, o Options, a target.Addresses, r target.Runtime, progress Progress) (*report.Report, error) {
	return run(ctx, o, newPlan(o), a, r, progress)
}

func run(ctx context.Context, o Options, p plan, a target.Addresses, r target.Runtime, progress Progress) (*report.Report, error) {
	s := &suite{plan: p, addresses: a, runtime: r, mix: workload.NewMix(), progress: progress}
	s.reads = &load.Reads{Mix: s.mix, Posts: s.posts}
	s.ranks = s.reads.Draw(3, 1<<16)
	s.report = &report.Report{Mode: "quick", Began: time.Now()}
	if o.Full {
		s.report.Mode = "full"
	}
	if len(o.Only) > 0 {
		s.report.Partial = "only " + strings.Join(o.Only, ", ") + " was asked for"
	}
	wrk, err := load.NewWrk(s.reads, &s.counts)
	if err != nil {
		return nil, err
	}
	defer wrk.Close()
	s.wrk = wrk
	s.peer = new(peers)
	defer s.peer.stop()
	s.describe(ctx)

	err = s.parts(ctx, o)
	s.report.Took = time.Since(s.report.Began)
	s.report.Checked = report.Checked{Statuses: s.counts.Statuses.Load(), Bodies: s.counts.Bodies.Load()}
	var wrong *load.WrongError
	switch {
	case errors.As(err, &wrong):
		return nil, err
	case ctx.Err() != nil:
		s.report.Partial = "the run was stopped before its end"
		return s.report, nil
	case err != nil:
		return nil, err
	}
	return s.report, nil
}

func (s *suite) parts(ctx context.Context, o Options) error {
	if !o.has(Memory) { // which loads the posts itself
		s.progress.Part("posts")
		if _, err := s.load(ctx, nil); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if !o.has(p.name) {
			continue
		}
		s.progress.Part(p.title)
		if err := p.run(s, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// note keeps a sentence about what could not be had.
func (s *suite) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.report.Notes = append(s.report.Notes, text)
	s.progress.Say("%s", text)
}

// readerAddrs returns the addresses of all readers, the one past the gateway last.
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
