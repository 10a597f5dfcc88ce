package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	interval      = time.Second
	historyLength = 300 // points: five minutes
	scrapeTimeout = 800 * time.Millisecond
	maxScrape     = 8 << 20 // bytes
)

// Point is what was measured at one time, by process and name. What could not be measured is absent.
type Point struct {
	Time   int64                         `json:"t"` // Unix milliseconds
	Values map[string]map[string]float64 `json:"v"`
}

// Series is what GET /api/series answers: the processes as they are now and the points so far, the
// oldest first. Rates are per second, times in seconds, sizes in bytes.
type Series struct {
	Processes []Process `json:"processes"`
	Points    []Point   `json:"points"`
}

// collector measures every process once a second and keeps the last five minutes.
type collector struct {
	processes func(context.Context) []Process
	client    *http.Client
	tracks    map[string]*track // by process; used by the collecting goroutine alone

	mu     sync.Mutex // guards newest
	newest Series     // its slices are replaced, never changed: what was handed out stays as it is
}

func newCollector(processes func(context.Context) []Process) *collector {
	return &collector{
		processes: processes,
		client:    &http.Client{Timeout: scrapeTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}},
		tracks:    make(map[string]*track),
	}
}

// run collects until ctx is done.
func (c *collector) run(ctx context.Context) {
	defer c.client.CloseIdleConnections()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		c.collect(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collect measures once. It is bounded by the bounds of looking at the processes and of a scrape.
func (c *collector) collect(ctx context.Context) {
	processes := c.processes(ctx)
	type result struct {
		at     time.Time
		sample sample
		err    error
	}
	results := make([]result, len(processes))
	var wg sync.WaitGroup
	for i, p := range processes {
		if p.Metrics == "" || p.PID == 0 && !p.External {
			results[i].err = errNoMetrics
			continue
		}
		wg.Go(func() {
			s, err := c.scrape(ctx, p)
			results[i] = result{time.Now(), s, err}
		})
	}
	wg.Wait()
	point := Point{Time: time.Now().UnixMilli(), Values: make(map[string]map[string]float64, len(processes))}
	tracks := make(map[string]*track, len(processes)) // those of processes that left are dropped
	for i, p := range processes {
		if results[i].err != nil {
			continue // a gap in the chart; what comes after it is compared with nothing older
		}
		t := c.tracks[p.Name]
		if t == nil {
			t = new(track)
		}
		tracks[p.Name] = t
		point.Values[p.Name] = t.add(results[i].at, results[i].sample)
	}
	c.tracks = tracks

	c.mu.Lock()
	defer c.mu.Unlock()
	points := append(c.newest.Points[:len(c.newest.Points):len(c.newest.Points)], point)
	c.newest = Series{Processes: processes, Points: points[max(0, len(points)-historyLength):]}
}

var errNoMetrics = errors.New("the process has no metrics now")

func (c *collector) scrape(ctx context.Context, p Process) (sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Metrics, nil)
	if err != nil {
		return sample{}, fmt.Errorf("scrape: %w", err)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return sample{}, fmt.Errorf("scrape: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return sample{}, fmt.Errorf("scrape %s: %s", p.Name, res.Status)
	}
	return parseSample(io.LimitReader(res.Body, maxScrape), p.Role)
}

// series returns the points after a time in Unix milliseconds, of those the last at most.
func (c *collector) series(after int64, last int) Series {
	c.mu.Lock()
	s := c.newest
	c.mu.Unlock()
	i := len(s.Points)
	for i > 0 && s.Points[i-1].Time > after && len(s.Points)-i < last {
		i--
	}
	s.Points = s.Points[i:]
	return s
}
