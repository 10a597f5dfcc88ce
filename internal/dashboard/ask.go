package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"heavy-read-api/internal/stack/events"
	"heavy-read-api/internal/stack/state"
)

const (
	askTimeout = 800 * time.Millisecond // longest wait for a /status or the alerts
	maxAnswer  = 1 << 20                // bytes
)

// alert is an alert that fires in Prometheus.
type alert struct {
	Name     string `json:"name"`
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
}

// digests returns the digests of the readers that are up and have one, nil if none has.
func (h *history) digests(ctx context.Context, processes []state.Process) map[string]events.Digest {
	var mu sync.Mutex // guards all
	var all map[string]events.Digest
	var asking sync.WaitGroup
	for _, p := range processes {
		if p.Role != state.Reader || !p.Up() {
			continue
		}
		asking.Go(func() {
			var status struct {
				Digest *events.Digest `json:"digest"`
			}
			if h.ask(ctx, "http://"+p.Address+"/status", &status) != nil || status.Digest == nil || status.Digest.Value == "" {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if all == nil {
				all = make(map[string]events.Digest)
			}
			all[p.Name] = *status.Digest
		})
	}
	asking.Wait()
	return all
}

// alerts returns the alerts that fire, and the URL of Prometheus for the browser, "" without a Prometheus.
func (h *history) alerts(ctx context.Context, processes []state.Process) (firing []alert, link string) {
	base := h.cfg.Prometheus
	link = h.cfg.PrometheusLink
	for _, p := range processes {
		if p.Role == state.Prometheus && p.Up() && base == "" {
			base, link = "http://"+p.Address, "http://"+p.Address
		}
	}
	if base == "" {
		return nil, ""
	}
	var body struct {
		Data struct {
			Alerts []struct {
				State       string            `json:"state"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"alerts"`
		} `json:"data"`
	}
	if h.ask(ctx, base+"/api/v1/alerts", &body) != nil {
		return nil, link
	}
	for _, a := range body.Data.Alerts {
		if a.State == "firing" {
			firing = append(firing, alert{a.Labels["alertname"], a.Labels["severity"], a.Annotations["summary"]})
		}
	}
	return firing, link
}

// ask requests a JSON document.
func (h *history) ask(ctx context.Context, url string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(answer)
}

// ownPolls counts the reads with which the page itself watches a post arrive, by reader. They are no traffic.
type ownPolls struct {
	mu       sync.Mutex // guards byReader
	byReader map[string]map[string]float64
}

// add counts one answered read.
func (o *ownPolls) add(reader string, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byReader == nil {
		o.byReader = make(map[string]map[string]float64)
	}
	if o.byReader[reader] == nil {
		o.byReader[reader] = make(map[string]float64)
	}
	o.byReader[reader]["reads"]++
	o.byReader[reader]["hits"]++ // memory answers that a post does not exist, too
	if status == http.StatusNotModified {
		o.byReader[reader]["not_modified"]++
	}
}

// of returns a copy of the counts of a reader.
func (o *ownPolls) of(reader string) map[string]float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	counts := make(map[string]float64, len(o.byReader[reader]))
	for name, n := range o.byReader[reader] {
		counts[name] = n
	}
	return counts
}
