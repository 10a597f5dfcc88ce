package dashboard

import (
	"context"
	"sync"
	"time"

	"heavy-read-api/internal/stack/measure"
	"heavy-read-api/internal/stack/state"
)

const (
	interval      = time.Second
	historyLength = 300 // points: five minutes
)

// point holds the measurements of one moment, by process and name. A process that did not answer is absent.
type point struct {
	Time   int64                     `json:"t"` // Unix milliseconds
	Values map[string]measure.Values `json:"v"`
}

// series is the answer of GET /api/series: the current processes and the points so far, the oldest first.
type series struct {
	Processes []state.Process `json:"processes"`
	Points    []point         `json:"points"`
}

// history measures every process once a second and keeps the points of the last five minutes.
type history struct {
	processes func(context.Context) []state.Process
	collector *measure.Collector // only the goroutine that runs collect uses it

	mu     sync.Mutex // guards newest
	newest series     // its slices are replaced, never changed, so that callers of since may keep them
}

func newHistory(processes func(context.Context) []state.Process) *history {
	return &history{processes: processes, collector: measure.NewCollector()}
}

// run collects until ctx is done.
func (h *history) run(ctx context.Context) {
	defer h.collector.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		h.collect(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collect adds a point. The timeouts of the health checks and of a scrape bound it.
func (h *history) collect(ctx context.Context) {
	processes := h.processes(ctx)
	values := h.collector.Collect(ctx, processes)
	p := point{Time: time.Now().UnixMilli(), Values: values}

	h.mu.Lock()
	defer h.mu.Unlock()
	points := append(h.newest.Points[:len(h.newest.Points):len(h.newest.Points)], p)
	h.newest = series{Processes: processes, Points: points[max(0, len(points)-historyLength):]}
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
	return s
}
