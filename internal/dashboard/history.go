package dashboard

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/measure"
	"heavy-read-api/internal/stack/state"
)

const (
	interval      = time.Second // between two points
	watchInterval = 500 * time.Millisecond
	eagerInterval = 150 * time.Millisecond // between two observations while an event goes on
	historyLength = 300                    // points: five minutes
)

// point holds the measurements of one moment, by process and name. A process that did not answer is absent.
type point struct {
	Time   int64                     `json:"t"` // Unix milliseconds
	Values map[string]measure.Values `json:"v"`
}

// series is the answer of GET /api/series: the current processes and the points so far, the oldest first.
type series struct {
	Processes []state.Process          `json:"processes"`
	Points    []point                  `json:"points"`
	Events    []events.Event           `json:"events"`
	Totals    events.Totals            `json:"totals"`
	Digests   map[string]events.Digest `json:"digests,omitempty"`   // by reader
	Agreement events.Agreement         `json:"agreement,omitempty"` // of the digests at the last point at which they could be compared
	Alerts    []alert                  `json:"alerts,omitempty"`    // those that fire
	Controls  bool                     `json:"controls"`            // the control API is there
	Link      string                   `json:"prometheus,omitempty"`
}

// history observes every process, passes what it sees to the log of events, and keeps the points of the last five
// minutes.
type history struct {
	cfg      Config
	measured *measure.Collector // only the goroutine of run uses it
	client   *http.Client

	mu     sync.Mutex // guards newest
	newest series     // its slices are replaced, never changed, so that callers of since may keep them
}

func newHistory(cfg Config, polls *ownPolls) *history {
	h := &history{
		cfg: cfg, measured: measure.NewCollector(),
		client: &http.Client{Timeout: askTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}},
	}
	h.measured.Own = polls.of
	return h
}

// run observes until ctx is done.
func (h *history) run(ctx context.Context) {
	defer h.measured.Close()
	defer h.client.CloseIdleConnections()
	var next time.Time // of the next point
	for {
		if now := time.Now(); now.Before(next) {
			h.observe(ctx)
		} else {
			next = now.Add(interval - 10*time.Millisecond) // of two observations per second, each second one is a point
			h.collect(ctx)
		}
		pause := watchInterval
		if h.cfg.Log.Open() {
			pause = eagerInterval
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// observe checks the processes, counts the reads, and passes both to the log.
func (h *history) observe(ctx context.Context) {
	processes := h.cfg.Processes(ctx)
	h.measured.Count(ctx, slices.DeleteFunc(slices.Clone(processes), func(p state.Process) bool {
		return p.Role != state.Gateway && p.Role != state.Load
	}))
	h.log(processes, h.digests(ctx, processes), nil, nil)
}

// collect observes and adds a point. The timeouts of the health checks and of a scrape bound it.
func (h *history) collect(ctx context.Context) {
	processes := h.cfg.Processes(ctx)
	digests := h.digests(ctx, processes)
	values := h.measured.Collect(ctx, slices.DeleteFunc(slices.Clone(processes), hangs))
	snapshots, catchups := make(map[string]int64), make(map[string]int64)
	for _, p := range processes {
		if _, answered := values[p.Name]; answered && p.Role == state.Reader {
			snapshots[p.Name] = int64(h.measured.Grown(p.Name, "snapshots"))
			catchups[p.Name] = int64(h.measured.Grown(p.Name, "catchups"))
		}
	}
	h.log(processes, digests, snapshots, catchups)
	alerts, link := h.alerts(ctx, processes)
	agreement, _ := events.Compare(digests)

	h.mu.Lock()
	defer h.mu.Unlock()
	if agreement == events.NotKnown && digests != nil {
		agreement = h.newest.Agreement
	}
	points := append(h.newest.Points[:len(h.newest.Points):len(h.newest.Points)], point{Time: time.Now().UnixMilli(), Values: values})
	h.newest = series{
		Processes: processes, Points: points[max(0, len(points)-historyLength):],
		Digests: digests, Agreement: agreement, Alerts: alerts, Controls: h.cfg.Controls, Link: link,
	}
}

// hangs reports whether the health check of a process has timed out: its scrape would delay the point as much again.
func hangs(p state.Process) bool { return p.State == state.NotReady && p.Detail == "timeout" }

// log passes an observation to the log. The gateway counts the reads that it answers; the load generator counts the
// failures that no server has seen.
func (h *history) log(processes []state.Process, digests map[string]events.Digest, snapshots, catchups map[string]int64) {
	totals := events.Totals{
		Reads:  int64(h.measured.Total(state.Gateway, "reads")),
		Failed: int64(h.measured.Total(state.Gateway, "errors") + h.measured.Total(state.Load, "lost")),
	}
	var delay time.Duration
	if h.cfg.ByClients {
		totals = events.Totals{Reads: int64(h.measured.Total(state.Load, "reads")), Failed: int64(h.measured.Total(state.Load, "failed"))}
	} else if i := slices.IndexFunc(processes, func(p state.Process) bool { return p.Role == state.Gateway }); i >= 0 && processes[i].Refresh > 0 {
		delay = processes[i].Refresh + interval // until the next scrape
	}
	h.cfg.Log.Observe(events.Observation{
		Time: time.Now(), Processes: processes, Totals: totals, Digests: digests, Snapshots: snapshots, CatchUps: catchups, Delay: delay,
	})
}

// since returns the points after a time in Unix milliseconds, and of those the newest last at most.
func (h *history) since(after int64, last int) series {
	h.mu.Lock()
	s := h.newest
	h.mu.Unlock()
	i := len(s.Points)
	for i > 0 && s.Points[i-1].Time > after && len(s.Points)-i < last {
		i--
	}
	s.Points = s.Points[i:]
	s.Events, s.Totals = h.cfg.Log.Events(), h.cfg.Log.Totals()
	return s
}
