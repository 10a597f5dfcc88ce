// Package measure scrapes the metrics of the stack's processes and turns them into rates and quantiles.
package measure

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"heavy-read-api/internal/stack/state"
)

const (
	scrapeTimeout = 800 * time.Millisecond
	maxScrape     = 8 << 20 // bytes
)

// Values are measurements by name. Rates are per second, times in seconds, sizes in bytes. A name without a
// value is absent.
type Values map[string]float64

// Collector measures processes. One goroutine at a time may use it.
type Collector struct {
	client *http.Client      // ignores proxies of the environment
	tracks map[string]*track // by process
	tally  tally
	// Own, if set, returns what the caller itself has requested from a process so far, by counter. It is not counted
	// as traffic.
	Own func(process string) map[string]float64
}

// NewCollector returns a collector for the caller to close.
func NewCollector() *Collector {
	return &Collector{
		client: &http.Client{Timeout: scrapeTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}},
		tracks: make(map[string]*track),
		tally:  newTally(time.Now()),
	}
}

// Close closes the idle connections.
func (c *Collector) Close() { c.client.CloseIdleConnections() }

// result is a scrape of one process.
type result struct {
	at     time.Time // zero when the scrape failed
	sample sample
}

// Collect scrapes every process at the same time, within scrapeTimeout, and returns the values of each that
// answers by its name. A process has rates from its second scrape on: they are those since the last Collect.
func (c *Collector) Collect(ctx context.Context, processes []state.Process) map[string]Values {
	values := make(map[string]Values, len(processes))
	tracks := make(map[string]*track, len(processes)) // without those of processes that are gone
	for i, r := range c.scrapeAll(ctx, processes) {
		p := processes[i]
		if r.at.IsZero() {
			continue // a gap: the next scrape has no earlier one to compare with
		}
		t := c.tracks[p.Name]
		if t == nil {
			t = new(track)
		}
		tracks[p.Name] = t
		values[p.Name] = t.add(r.at, r.sample, p.Refresh)
	}
	c.tracks = tracks
	return values
}

// Count scrapes like Collect, but only for Total and Grown: the rates of the next Collect do not begin here.
func (c *Collector) Count(ctx context.Context, processes []state.Process) {
	c.scrapeAll(ctx, processes)
}

// scrapeAll scrapes every process at the same time, adds what it counts to the tally, and returns a result for each.
func (c *Collector) scrapeAll(ctx context.Context, processes []state.Process) []result {
	results := make([]result, len(processes))
	var wg sync.WaitGroup
	for i, p := range processes {
		if p.Metrics == "" || p.State == state.Restarting {
			continue
		}
		wg.Go(func() {
			s, err := c.scrape(ctx, p)
			if err != nil {
				return
			}
			if c.Own != nil {
				s.own = c.Own(p.Name)
			}
			results[i] = result{time.Now(), s}
		})
	}
	wg.Wait()
	for i, r := range results {
		if !r.at.IsZero() {
			c.tally.add(processes[i], r.sample)
		}
	}
	return results
}

// Total returns the growth of a counter since NewCollector, over all processes of a role that there have been. A restart
// of a process does not lower it.
func (c *Collector) Total(role, counter string) float64 { return c.tally.total[place{role, counter}] }

// Grown returns the growth of a counter of one process since NewCollector.
func (c *Collector) Grown(process, counter string) float64 {
	return c.tally.processes[process].grown[counter]
}

func (c *Collector) scrape(ctx context.Context, p state.Process) (sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Metrics, nil)
	if err != nil {
		return sample{}, fmt.Errorf("scrape %s: %w", p.Name, err)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return sample{}, fmt.Errorf("scrape %s: %w", p.Name, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return sample{}, fmt.Errorf("scrape %s: %s", p.Name, res.Status)
	}
	return parseSample(io.LimitReader(res.Body, maxScrape), p.Role)
}
