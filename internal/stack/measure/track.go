package measure

import (
	"maps"
	"math"
	"time"
)

// quantileWindow is the number of scrapes over which quantiles are taken: one second of light traffic has too
// few reads for a 99th percentile.
const quantileWindow = 5

// track turns the scrapes of one process into rates and quantiles.
type track struct {
	at      time.Time // time of the newest sample; zero before the first one
	scraped time.Time // time of the newest scrape, which may have had nothing new
	newest  sample
	recent  map[string][]histogram // growth of each histogram in the last scrapes, quantileWindow at most
	values  Values                 // of newest
}

// add records a scrape and returns its values: gauges unchanged, rates per second since the previous scrape, and
// quantiles over the last quantileWindow scrapes. A rate without an earlier scrape and a quantile without an
// observation are absent. Of a process that updates its metrics once per refresh, the values stay the same until the next
// update, and are those of one refresh.
func (t *track) add(at time.Time, s sample, refresh time.Duration) Values {
	since := at.Sub(t.scraped)
	t.scraped = at
	// Without an update for two refreshes, nothing happens any more.
	if t.values == nil || at.Sub(t.at) >= 2*refresh || s.started != t.newest.started || !maps.Equal(s.counters, t.newest.counters) {
		t.values = t.update(at, s, max(since, refresh).Seconds(), refresh > 0)
	}
	return t.values
}

// update returns the values of a scrape. seconds is the time in which what is new has happened.
func (t *track) update(at time.Time, s sample, seconds float64, once bool) Values {
	values := make(Values, len(s.gauges)+len(s.counters)+4)
	for name, v := range s.gauges {
		values[name] = v
	}
	previous := t.newest
	window := quantileWindow
	if once {
		window = 1
	}
	first := t.at.IsZero()
	t.at, t.newest = at, s
	if first || seconds <= 0 {
		return values
	}
	own := make(map[string]float64, len(s.own))
	for name, v := range s.own {
		own[name] = v - previous.own[name]
	}
	if s.started != previous.started {
		previous = sample{} // a new process: its counters began at zero
		t.recent = nil
	}
	gained := make(map[string]float64, len(s.counters))
	for name, v := range s.counters {
		gained[name] = max(0, increase(previous.counters[name], v)-own[name])
		values[name] = round(gained[name] / seconds)
	}
	if gained["reads"] > 0 {
		values["not_modified_share"] = round(gained["not_modified"] / gained["reads"])
	}
	if t.recent == nil {
		t.recent = make(map[string][]histogram)
	}
	for name, h := range s.histograms {
		if name == "" && own["reads"] > 0 {
			continue // a histogram does not say which of the durations are those of the collector's own requests
		}
		recent := append(t.recent[name], h.since(previous.histograms[name]))
		recent = recent[max(0, len(recent)-window):]
		t.recent[name] = recent
		var sum histogram
		for _, r := range recent {
			sum = sum.plus(r)
		}
		if name != "" {
			name += "_"
		}
		for _, q := range []struct {
			suffix string
			share  float64
		}{{"p50", 0.50}, {"p99", 0.99}} {
			if v, ok := sum.quantile(q.share); ok {
				values[name+q.suffix] = round(v)
			}
		}
	}
	return values
}

// increase returns the growth of a counter; one that decreased was reset to zero.
func increase(from, to float64) float64 {
	if to < from {
		return to
	}
	return to - from
}

// round keeps four significant digits.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-3)
	if unit >= 1 {
		return math.Round(v/unit) * unit
	}
	return math.Round(v/unit) / math.Round(1/unit) // dividing by a whole number prints short
}
